"""Exclusion lists: files, written by `vmmr-search audit` or by hand, that name photos a command must leave out."""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from search_svc.dataset.csv_files import read_rows
from svckit.cli import CommandError


def add_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exclude",
        metavar="CSV",
        type=Path,
        help="leave out the photos that the column `path` of this file names; `audit` writes such a file",
    )


def excluded(path: Path | None, known: Collection[str]) -> set[str]:
    """Return those of the `known` paths that the list names; none without a list.

    Prints how many they are, and a warning if the list names others. Raises CommandError if it names no known path at all,
    for then its paths belong to another folder.
    """
    if path is None:
        return set()
    names = read(path)
    found = names.intersection(known)
    unknown = sorted(names - found)
    if unknown and not found:
        raise CommandError(f"{path}: none of its photos is here, not even {unknown[0]!r}: paths are as in manifest.csv")
    if unknown:
        print(f"warning: {path}: {len(unknown)} photos are not here, the first is {unknown[0]!r}", file=sys.stderr)
    print(f"{path}: {len(found)} photos are left out", file=sys.stderr)
    return found


def read(path: Path) -> set[str]:
    """Return the paths in the column `path`, written as in manifest.csv. Raises ArtifactError if the file has none."""
    names = (row["path"] for _, row in read_rows(path, ["path"], strict=True))
    return {str(PurePosixPath(name)) for name in names if name}
