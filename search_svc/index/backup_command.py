"""`vmmr-search backup` and `restore`."""

import argparse
import logging
from pathlib import Path

from search_svc.index.backup import Backup, back_up, restore
from search_svc.index.index_dir import current
from svckit import beside
from svckit.cli import count
from svckit.redaction import without_secrets


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "backup",
        help="copy what is new of an index to a folder of backups, while it serves",
        description="Adds a backup of an index as it is at one moment, journal included, to a folder of backups: a path, or a URL "
        "that fsspec can write to (for example s3://bucket/folder, with s3fs installed). Only what the folder lacks is copied. "
        "Servers go on meanwhile.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory")
    parser.add_argument("backups", metavar="BACKUPS", help="the folder of backups")
    parser.add_argument(
        "--keep", metavar="N", type=count, help="backups to keep; older ones are removed (default: all)"
    )
    parser.add_argument(beside.FLAG, action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=_back_up)
    parser = subparsers.add_parser(
        "restore",
        help="make an index of a backup",
        description="Makes an index of what `backup` wrote, once every file is found to be as it was.",
    )
    parser.add_argument("backups", metavar="BACKUPS", help="the folder of backups: a path or a URL")
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory to make; must not be there")
    add_at_sequence(parser)
    parser.add_argument(
        "--if-absent",
        action="store_true",
        help="do nothing if INDEX is an index already: for containers, which may start again",
    )
    parser.set_defaults(run=_restore)


def add_at_sequence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at-sequence",
        metavar="N",
        type=int,
        help="the gallery after the last write that had ended by that entry of the journal (default: the newest backup)",
    )


def told(backup: Backup) -> str:
    return f"version {backup.version}, journal to {backup.journal_sequence}, {_mib(backup.size)}"


def _tell_warnings() -> None:
    logging.basicConfig(format=f"{beside.WARNING}%(message)s", level=logging.WARNING)


def _back_up(args: argparse.Namespace) -> None:
    _tell_warnings()
    if args.for_server:
        beside.yield_to_server()
    done = back_up(args.index, args.backups, args.keep or 0)
    print(f"{without_secrets(args.backups)}: {told(done)}, of which copied {_mib(done.copied)}")


def _restore(args: argparse.Namespace) -> None:
    _tell_warnings()
    if args.if_absent and args.index.exists():
        current(args.index)  # raises ArtifactError if that is no index, as a folder where an empty volume is mounted
        print(f"{args.index}: is there already, and is left as it is")
        return
    print(f"{args.index}: {told(restore(args.backups, args.index, args.at_sequence))}")


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
