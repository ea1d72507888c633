"""`--workers` and `--memory`: the flags of every command that builds an index version."""

import argparse

from search_svc.building.spec import MEMORY_BYTES, Resources
from svckit.cli import CommandError
from svckit.cores import cores

_GIB = 2**30
_LEAST_GIB = 0.125


def add(parser: argparse.ArgumentParser, *, every_core: bool) -> None:
    """Add the flags; by default a process fills shards, or with `every_core` as many as there are cores."""
    default = "the cores there are" if every_core else "1"
    parser.add_argument(
        "--workers",
        type=int,
        default=None if every_core else 1,
        help=f"processes that fill a shard each (default: {default})",
    )
    parser.add_argument(
        "--memory",
        metavar="GIB",
        type=float,
        default=MEMORY_BYTES // _GIB,
        help="memory that it may use beside the shards that are being filled (default: %(default)g)",
    )


def read(args: argparse.Namespace) -> Resources:
    """Return what the flags say. Raises CommandError, naming the flag, if that makes no sense."""
    if args.workers is not None and args.workers < 1:
        raise CommandError(f"--workers must be >= 1, got {args.workers}")
    if not _LEAST_GIB <= args.memory < float("inf"):
        raise CommandError(f"--memory must be {_LEAST_GIB} GiB or more, got {args.memory:g}")
    return Resources(args.workers or cores(), int(args.memory * _GIB))
