"""A collection of labelled photos: a folder of folders, `DIR/<label>/<file>`.

Data sets often come with one more folder around the label folders (`VMMRdb/`, `VMMRdb_master/`, Stanford's `train/`). Such a
folder is part of the photos' paths, not of their labels.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmmr.photo_names import has_photo_name

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
    """The folder that holds the label folders, relative to the folder of the collection: empty, or ending in `/`."""
    classes: Mapping[str, Sequence[str]]
    """The file names of the photos by label, both sorted; every label has photos."""
    skipped: Sequence[Remark]
    """Files and folders that are not labelled photos."""


def scan(directory: Path) -> Collection:
    """List the labelled photos in `directory`. Raises CommandError if there is none."""
    if not directory.is_dir():
        raise CommandError(f"{directory}: there is no such folder")
    top = _top(directory)
    classes: dict[str, list[str]] = {}
    skipped: list[Remark] = []
    for label, name, reason in _photos(directory / top):
        if reason:
            skipped.append(Remark(f"{top}{label}/{name}" if label else f"{top}{name}", reason))
        else:
            classes.setdefault(label, []).append(name)
    if not classes:
        raise CommandError(f"{directory}: holds no photo in a folder named after its label")
    return Collection(top, classes, skipped)


def _top(directory: Path) -> str:
    """Return the name, with a `/`, of the one folder around the label folders; empty if there is no such folder."""
    folders = [entry for entry in _entries(directory) if entry.is_dir()]
    if len(folders) != 1:
        return ""
    inside = _entries(folders[0].path)
    wraps = any(entry.is_dir() for entry in inside) and not any(map(_is_photo, inside))
    return f"{folders[0].name}/" if wraps else ""


def _photos(root: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yield (label, file name, why it is skipped) for all in the label folders; files beside these have the label ""."""
    for folder in _entries(root):
        if not folder.is_dir():
            yield "", folder.name, "not in a folder named after a label"
            continue
        for entry in _entries(folder.path):
            yield folder.name, entry.name, _why_not(folder.name, entry)


def _why_not(label: str, entry: "os.DirEntry[str]") -> str | None:
    if entry.is_dir():
        return "a folder within the folder of a label"
    if not _is_photo(entry):
        return "not a photo file"
    if not f"{label}{entry.name}".isprintable():
        return "its name has characters that cannot be printed"
    return None


def _entries(directory: str | Path) -> "list[os.DirEntry[str]]":
    """Return the entries of a folder, sorted by name, without clutter."""
    return sorted((entry for entry in os.scandir(directory) if not _is_clutter(entry.name)), key=lambda e: e.name)


def _is_photo(entry: "os.DirEntry[str]") -> bool:
    return has_photo_name(entry.name) and entry.is_file()


def _is_clutter(name: str) -> bool:
    """Return whether the name is that of a hidden file, or of the folder that macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"
