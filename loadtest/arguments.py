"""Parse the arguments of `vmmr-loadtest`. Nothing of the extra is imported here, so `--help` works without it."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vmmr._cli.arguments import Arguments, add_connection, add_search, fraction, integer, seconds
from vmmr._version import __version__

T = TypeVar("T")

SUMMARY = "how fast the services are, and how far they can be pushed"
EXIT_CODES = """exit codes:
  0    measured, and what was to be met was met
  1    the SLO was missed, or not all was measured that was to meet it, or too many calls failed, or compare found a regression
  2    the command line or the environment makes no sense, or the two files can't be compared
  3    a service could not be reached, or refused to tell what it serves, or the generator failed
  4    the SLO was given, and where the generator was no limit it was met, but it was one elsewhere: nothing is proven
  130  interrupted; what was measured until then was reported
  141  whoever read the output went away"""

_TARGETS = {
    "embed": "photos to embeddings",
    "search": "embeddings to nearest gallery photos",
    "classify": "embeddings to make, model and year",
    "identify": "photos to make, model and year: both services, one after the other",
}


def parser(environment: Mapping[str, str], program: str) -> argparse.ArgumentParser:
    """Make the parser of the command, which its user called by the name `program`."""
    top = Arguments(environment, prog=program, description=SUMMARY, epilog=EXIT_CODES)
    top.add_argument("--version", action="version", version=f"{program} {__version__}")
    targets = top.add_subparsers(required=True, metavar="TARGET", dest="target")
    for name, summary in _TARGETS.items():
        target = targets.add_parser(
            name, environment=environment, help=summary, description=f"Load test: {summary}.", epilog=EXIT_CODES
        )
        _add_load(target)
        _add_sent(target, name)
        _add_bounds(target)
        _add_goals(target)
        _add_output(target)
        if name != "embed":
            add_search(target.add_argument_group("search"))
        add_connection(target)
    _add_compare(targets, environment)
    return top


def _add_load(target: Arguments) -> None:
    group = target.add_argument_group("load").add_mutually_exclusive_group()
    group.add_argument(
        "--rate",
        metavar="R,...",
        type=_list(_positive),
        help="open loop: so many calls start each second, one step for each rate; latencies count from when a call was to start",
    )
    group.add_argument(
        "--concurrency",
        metavar="N,...",
        type=_list(integer(1)),
        help="closed loop: so many callers, each of whom calls again when answered, one step for each number",
    )
    group.add_argument(
        "--find-knee",
        action="store_true",
        help="open loop: search for the knee, and for the highest rate that meets --slo-p99-ms (the default)",
    )
    more = target.add_argument_group("how the load is made")
    more.add_argument(
        "--arrivals", choices=("uniform", "poisson"), default="uniform", help="of an open loop (default: uniform)"
    )
    more.add_argument(
        "--processes", metavar="N", type=integer(1), help="that make the calls (default: one for every 4 cores)"
    )
    more.add_argument("--seed", metavar="N", type=integer(0), default=0, help="of all that is random (default: 0)")
    more.add_argument(
        "--max-steps", metavar="N", type=integer(2), default=16, help="of --find-knee, at most (default: 16)"
    )
    more.add_argument(
        "--precision",
        metavar="P",
        type=_percent,
        default=0.05,
        help="of --find-knee, in %% of the rate (default: 5)",
    )


def _add_sent(target: Arguments, name: str) -> None:
    group = target.add_argument_group("what is sent")
    photos = name in ("embed", "identify")
    instead = "drawn ones" if photos else "random vectors; with photos, the embedder embeds them first"
    group.add_argument(
        "--photos", metavar="DIR", type=Path, help=f"a folder, searched recursively for photos (default: {instead})"
    )
    group.add_argument(
        "--distinct",
        metavar="N",
        type=integer(1),
        default=256,
        help="different photos or vectors, at most, sent in turn (default: 256)",
    )
    group.add_argument(
        "--batch", metavar="N", type=integer(1), default=1, help="photos or queries in a call (default: 1)"
    )
    if photos:
        group.add_argument(
            "--subject",
            choices=("whole", "main_car", "every_car"),
            help="what of each photo to look at (default: what the embedder looks at by itself)",
        )
        group.add_argument(
            "--size", metavar="WxH", type=_size, default=(500, 375), help="of drawn photos (default: 500x375)"
        )


def _add_bounds(target: Arguments) -> None:
    group = target.add_argument_group("how long")
    group.add_argument(
        "--duration", metavar="S", type=seconds, default=10.0, help="seconds that a step is measured (default: 10)"
    )
    group.add_argument(
        "--warmup",
        metavar="S",
        type=_not_negative,
        default=2.0,
        help="seconds of the same load before it that are not measured (default: 2)",
    )
    group.add_argument(
        "--max-calls",
        metavar="N",
        type=integer(1),
        default=1_000_000,
        help="of all steps together, warm-up included (default: 1000000)",
    )


def _add_goals(target: Arguments) -> None:
    group = target.add_argument_group("what must be met")
    group.add_argument(
        "--slo-p99-ms", metavar="MS", type=_positive, help="99 %% of all calls must be answered within MS milliseconds"
    )
    group.add_argument(
        "--max-errors",
        metavar="P",
        type=_percent,
        default=0.01,
        help="%% of calls that may fail, other than by being refused (default: 1)",
    )


def _add_output(target: Arguments) -> None:
    group = target.add_argument_group("output, beside the table")
    group.add_argument("--json", metavar="FILE", type=Path, help="all that was measured; what compare reads")
    group.add_argument(
        "--html", metavar="FILE", type=Path, help="one page with plots, which needs nothing beside itself"
    )
    group.add_argument("--quiet", action="store_true", help="no progress on standard error")


def _add_compare(targets: Any, environment: Mapping[str, str]) -> None:
    summary = "two results of --json: is the newer one worse?"
    compare = targets.add_parser(
        "compare", environment=environment, help=summary, description=summary, epilog=EXIT_CODES
    )
    compare.add_argument("old", metavar="OLD", type=Path, help="written by --json, before")
    compare.add_argument("new", metavar="NEW", type=Path, help="written by --json, after")
    compare.add_argument(
        "--max-p99-increase", metavar="P", type=_percent, default=0.2, help="in %% of the old p99 (default: 20)"
    )
    compare.add_argument(
        "--max-throughput-decrease",
        metavar="P",
        type=_percent,
        default=0.1,
        help="in %% of the old calls/s that were answered (default: 10)",
    )
    compare.add_argument(
        "--max-errors-increase",
        metavar="P",
        type=_percent,
        default=0.01,
        help="in points of %% of calls refused or failed (default: 1)",
    )


def _list(kind: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    return lambda text: tuple(map(kind, text.split(",")))


def _positive(text: str) -> float:
    try:
        return seconds(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}") from None


def _not_negative(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else seconds(text)


def _percent(text: str) -> float:
    try:
        return fraction(str(float(text) / 100))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"must be a number of % from 0 to 100, got {text!r}") from None


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = map(integer(8), text.lower().split("x"))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, 8x8 or more, got {text!r}") from None
    return width, height
