"""Exclusion lists: photos of a collection that are left out of a step, as `vmmr-search audit` or a person wrote them."""

import argparse
import csv
import sys
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from svckit.artifact import ArtifactError
from svckit.cli import CommandError


def add_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exclude", metavar="CSV", type=Path, help="leave out the photos that its column `path` names (see audit)"
    )


def excluded(path: Path | None, known: Collection[str]) -> set[str]:
    """The known photos that the list names; nothing without a list. Says how many, and names one it does not know.

    Raises CommandError if it knows none of them: then the paths are of another folder.
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
    """The paths of a list. Other columns are passed over. Raises ArtifactError if it is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if "path" not in (reader.fieldnames or ()):
                raise ArtifactError(path, "has no column path")
            return set(_paths(row["path"] for row in reader))
    except OSError as error:
        raise ArtifactError(path, error.strerror or str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(path, f"not a CSV file in UTF-8: {error}") from error


def _paths(names: Iterable[str | None]) -> Iterable[str]:
    """As a manifest writes them."""
    return (str(PurePosixPath(name)) for name in names if name)
