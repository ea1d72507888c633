"""`vmmr-search compact`, `versions` and `rollback`: the versions of an index, from the command line, served or not."""

import argparse
import sys
from pathlib import Path

from search_svc.building import resource_flags
from search_svc.building.compaction import compact_all
from search_svc.index import retention
from search_svc.index.index_dir import EXIT_BUILD_RUNNING, BuildRunningError, current
from search_svc.index.version import IndexVersion
from svckit import beside
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
        "one. Servers go on meanwhile, and then switch to it. If it is stopped, the next compaction goes on from where it was. "
        "It ends when a version holds all that the journal held when it began.",
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
    resource_flags.add(parser, every_core=False)
    parser.add_argument(beside.FLAG, action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=_compact)


def _compact(args: argparse.Namespace) -> None:
    if args.keep_versions < 1:
        raise CommandError(f"--keep-versions must be >= 1, got {args.keep_versions}")
    resources = resource_flags.read(args)
    if args.for_server:
        beside.yield_to_server()
    try:
        made = compact_all(args.index, retrain=args.retrain, resources=resources)
        removed = _remove_old_versions(args.index, args.keep_versions)
    except BuildRunningError as error:
        print(f"vmmr-search: error: {error}", file=sys.stderr)
        sys.exit(EXIT_BUILD_RUNNING)
    print(_summary(args.index, made, removed))


def _remove_old_versions(index: Path, keep: int) -> str:
    """Remove old versions, and return which, as the end of a sentence. If it cannot, warn: the compaction has succeeded."""
    try:
        removed = retention.retire(index, keep)
    except retention.UnreadableVersionError as error:
        print(f"vmmr-search: warning: {error}", file=sys.stderr)
        return ""
    return f"; removed: {', '.join(removed)}" if removed else ""


def _summary(index: Path, made: IndexVersion | None, removed: str) -> str:
    if made is None:
        return f"{index}: nothing was written since version {current(index)} was built{removed}"
    manifest = made.manifest
    what = f"{manifest.items} photos of {manifest.labels} labels, journal to {manifest.journal_sequence}"
    return f"{made.path}: {what}{removed}"


def _roll_back(args: argparse.Namespace) -> None:
    before = _describe_current(args.index)
    now = retention.roll_back(args.index, args.version)
    print(f"{args.index}: version {now} is current now, {before} was before")


def _describe_current(index: Path) -> str:
    """Return which version is current, for a message. It may be unknown: a rollback is also the remedy if CURRENT is damaged."""
    try:
        return f"version {current(index)}"
    except ArtifactError as error:
        return f"none that is known ({error.reason})"
