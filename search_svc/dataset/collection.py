"""A collection of labelled photos: a folder, its photos by label, and what in it is none (`vmmr.labelled_folders` has the rule)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmmr import labelled_folders, photo_folders
from vmmr.photo_folders import LeftOut
from vmmr.photo_names import shown

from svckit.cli import CommandError


@dataclass(frozen=True)
class Remark:
    """A file or folder that the owner of the collection may want to look at, and the reason."""

    path: str
    """The path relative to the folder of the collection, with `/`."""
    reason: str


@dataclass(frozen=True)
class Collection:
    top: str
    """The folders that all labels' folders lie in, relative to the folder of the collection: empty, or ending in `/`."""
    classes: Mapping[str, Sequence[str]]
    """The paths of the photos by label, relative to the folder of the collection, both sorted; every label has photos."""
    left_out: Sequence[LeftOut]
    """Files and folders that are not labelled photos."""


def scan(directory: Path) -> Collection:
    """List the labelled photos in `directory`. Raise CommandError if there is none."""
    if not directory.is_dir():
        raise CommandError(f"{directory}: there is no such folder")
    found = labelled_folders.scan(directory)
    if not any("/" in path for path in found.labels):
        raise CommandError(
            _nothing(directory, [*map(LeftOut, found.labels, ["not in a folder"] * len(found.labels)), *found.left_out])
        )
    classes: dict[str, list[str]] = {}
    for path, label in found.labels.items():
        classes.setdefault(label, []).append(path)
    return Collection(found.top, dict(sorted(classes.items())), found.left_out)


def _nothing(directory: Path, left_out: Sequence[LeftOut]) -> str:
    told = f"{directory}: holds no photo in a folder named after its label"
    if not left_out:
        return told
    first = max(left_out, key=lambda each: each.files)
    return f"{told}; {photo_folders.tally(left_out)}; for example {shown(first.path)}"
