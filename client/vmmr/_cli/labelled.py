"""Find the labelled photos that a command line names: files, URLs, and folders whose names are labels."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vmmr.label_names import canonical, label_fault
from vmmr.labelled_folders import BESIDE, scan
from vmmr.photo_folders import LeftOut, find, tally
from vmmr.photo_names import shown


@dataclass(frozen=True)
class Labelled:
    """The name of a photo, and its label."""

    name: str
    label: str


@dataclass(frozen=True)
class Named:
    """All that the names on a command line stand for."""

    photos: list[Labelled]
    left_out: list[LeftOut]
    """Files in the folders that are not taken."""


def labelled(names: Iterable[str], label: str | None) -> Named:
    """Return the photos with these names; for a folder, the photos in it and below, and what of it is left out.

    Without `label`, a photo's label is what `vmmr.labelled_folders` makes of the folders that it lies in. Raise ValueError for a
    photo that has no label, and for a folder without photos.
    """
    if label and (fault := label_fault(label)):
        raise ValueError(f"--label: {fault}, got '{shown(label)}'")
    named = Named([], [])
    for name in names:
        photos, left_out = _of(name, canonical(label) if label else None)
        named.photos.extend(photos)
        named.left_out.extend(left_out)
    return named


def _of(name: str, label: str | None) -> tuple[list[Labelled], list[LeftOut]]:
    folder = Path(name)
    if folder.is_dir():
        labels, left_out = _in_folder(folder, label)
        if not labels:
            raise ValueError(f"{shown(name)}: {_nothing(left_out, label)}")
        photos = [Labelled(str(folder / path), its) for path, its in labels.items()]
        return photos, [replace(each, path=str(folder / each.path)) for each in left_out]
    if not label:
        raise ValueError(
            f"{shown(name)}: say what it shows with --label; only photos in a folder have its name for one"
        )
    return [Labelled(name, label)], []


def _in_folder(folder: Path, label: str | None) -> tuple[dict[str, str], list[LeftOut]]:
    """Return the labels of the photos in a folder, by their paths in it, and what is left out. Raise ValueError if one is unclear."""
    if label:
        found = find(folder)
        return dict.fromkeys(found.photos, label), found.left_out
    scanned = scan(folder)
    if stray := next((each for each in scanned.left_out if each.reason == BESIDE), None):
        raise ValueError(
            f"{shown(str(folder / stray.path))} lies beside folders of photos, so that folder's name is no label: give --label, or move it"
        )
    return scanned.labels, list(scanned.left_out)


def _nothing(left_out: list[LeftOut], label: str | None) -> str:
    unlabelled = not label and any(each.photos and not each.expected for each in left_out)
    what = "there are no photos with a label in that folder" if unlabelled else "there are no photos in that folder"
    told = tally(left_out)
    return f"{what}; {told}" if told else what
