"""`vmmr-search compact`, `versions` and `rollback`: the versions of an index, from the command line, served or not."""

import argparse
import os
import sys
import threading
from pathlib import Path

from search_svc.building.compaction import compact_all
from search_svc.building.spec import MEMORY_BYTES, Resources
from search_svc.index import retention
from search_svc.index.index_dir import EXIT_BUILD_RUNNING, BuildRunningError, current
from search_svc.index.version import IndexVersion
from svckit.artifact import ArtifactError
from svckit.cli import CommandError


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    _add_compact(subparsers)
    parser = subparsers.add_parser(
        "versions",
        help="list the versions of an index",
        description="Lists the versions of an index: when each was built, of how many items and which model, up to which "
        "journal entry, which is current, and which are in use.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory")
    parser.set_defaults(run=lambda args: print(retention.table(retention.versions(args.index))))
    parser = subparsers.add_parser(
        "rollback",
        help="serve an earlier version of an index",
        description="Makes an earlier version of an index the current one. Servers switch to it. What was written since is "
        "in the journal, and is served with it: nothing is lost.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory")
    parser.add_argument("version", metavar="VERSION", nargs="?", help="its name (default: the one before the current)")
    parser.set_defaults(run=_roll_back)


def _add_compact(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "compact",
        help="build the next version from the current one and the journal",
        description="Builds the next version of an index from the current one and the journal, and makes it the current "
        "one. Servers go on meanwhile, and switch to it. Stopped, it goes on from where it was. It ends when all that the "
        "journal held when it began is in a version.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory")
    parser.add_argument(
        "--keep-versions",
        metavar="N",
        type=int,
        default=retention.KEEP_VERSIONS,
        help="versions to keep; older ones that nobody uses are removed (default: %(default)s)",
    )
    parser.add_argument(
        "--retrain",
        action=argparse.BooleanOptionalAction,
        help="train the index anew, or take its training over (default: anew if more than 5 %% of the items are new)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that fill a shard each (default: 1)")
    parser.add_argument(
        "--memory",
        metavar="GIB",
        type=float,
        default=MEMORY_BYTES // 2**30,
        help="what it may hold beside the shards that are being filled (default: %(default)g)",
    )
    parser.add_argument("--for-server", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=_compact)


def _compact(args: argparse.Namespace) -> None:
    for name, least in (("keep_versions", 1), ("workers", 1), ("memory", 0.125)):
        if not least <= getattr(args, name) < float("inf"):
            raise CommandError(f"--{name.replace('_', '-')} must be >= {least}, got {getattr(args, name):g}")
    if args.for_server:
        _serve_gently()
    try:
        made = compact_all(
            args.index, retrain=args.retrain, resources=Resources(args.workers, int(args.memory * 2**30))
        )
        gone = _retired(args.index, args.keep_versions)
    except BuildRunningError as error:
        print(f"vmmr-search: error: {error}", file=sys.stderr)
        sys.exit(EXIT_BUILD_RUNNING)
    print(_told(args.index, made, gone))


def _retired(index: Path, keep: int) -> str:
    """Remove old versions, and say which; or why none was, which is no fault of the compaction's."""
    try:
        removed = retention.retire(index, keep)
    except retention.UnreadableVersionError as error:
        print(f"vmmr-search: warning: {error}", file=sys.stderr)
        return ""
    return f"; removed: {', '.join(removed)}" if removed else ""


def _told(index: Path, made: IndexVersion | None, gone: str) -> str:
    if made is None:
        return f"{index}: nothing was written since version {current(index)} was built{gone}"
    manifest = made.manifest
    what = f"{manifest.items} photos of {manifest.labels} labels, journal to {manifest.journal_sequence}"
    return f"{made.path}: {what}{gone}"


def _serve_gently() -> None:
    """Beside a server that started it: after its queries, and no longer than it lives."""
    os.nice(19)
    threading.Thread(target=_end_with_server, daemon=True).start()


def _end_with_server() -> None:
    """Nothing is ever sent: reading ends when the server's end is closed, as that of a dead process is."""
    sys.stdin.read()
    os._exit(1)


def _roll_back(args: argparse.Namespace) -> None:
    before = _before(args.index)
    now = retention.roll_back(args.index, args.version)
    print(f"{args.index}: version {now} is current now, {before} was before")


def _before(index: Path) -> str:
    """A rollback to a version that is named is what helps if CURRENT is damaged."""
    try:
        return f"version {current(index)}"
    except ArtifactError as error:
        return f"none that is known ({error.reason})"
