"""`vmmr-search backup` and `restore`."""

from pathlib import Path
from typing import TYPE_CHECKING

from search_svc.index.backup import Backup, back_up, restore

if TYPE_CHECKING:
    import argparse


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "backup",
        help="copy an index, while it serves",
        description="Copies an index as it is at one moment, journal included, to a new or empty folder: a path, or a URL "
        "that fsspec can write to (for example s3://bucket/folder, with s3fs installed). Servers go on meanwhile.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory")
    parser.add_argument("backup", metavar="DEST", help="where the backup goes")
    parser.set_defaults(run=lambda args: print(f"{args.backup}: {_told(back_up(args.index, args.backup))}"))
    parser = subparsers.add_parser(
        "restore",
        help="make an index of a backup",
        description="Makes an index of what `backup` wrote, once every file is found to be as it was.",
    )
    parser.add_argument("backup", metavar="SOURCE", help="the backup: a path or a URL")
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory to make; must not be there")
    parser.set_defaults(run=lambda args: print(f"{args.index}: {_told(restore(args.backup, args.index))}"))


def _told(backup: Backup) -> str:
    size = f"{backup.size / 2**20:.1f} MiB"
    return f"version {backup.version}, journal to {backup.journal_sequence}, {size}"
