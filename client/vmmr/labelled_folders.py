"""The labels of the photos in a folder, by the names of the folders that they lie in.

Three layouts are understood, below any folders that a data set comes wrapped in (`VMMRdb/`, Stanford's `train/`):

    label/photo                         each photo has the name of its folder for a label
    make/model/year/photo               the label is `make_model_year` (CompCars)
    make/model/year/colour/photo        the same (DVM-Car)

Photos that lie in no such place are left out, each with the reason.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vmmr import photo_folders
from vmmr.label_names import NO_YEAR, canonical, label_fault, normalise, read
from vmmr.photo_folders import LeftOut

BESIDE = "not in a folder named after a label"
TOO_DEEP = "in a folder within the folder of a label"
YEAR_ALONE = "in a folder named after a year, or below one, which takes a make's and a model's above it to be a label"
NO_YEAR_OF = "in a folder among those of makes and models, but in none of a year"
_NOT_KNOWN = "unknown"
"""The name of CompCars' folders of photos whose year is not known."""
_YEAR = re.compile(r"(19|20)[0-9]{2}")


@dataclass(frozen=True)
class LabelledFolder:
    """The photos of a folder and their labels, and all that is in it besides."""

    top: str
    """The folders around those of the labels: empty, or ending in `/`."""
    labels: dict[str, str]
    """The label of each photo, by its path below the folder, with `/`; sorted by path."""
    left_out: Sequence[LeftOut]


def scan(folder: Path) -> LabelledFolder:
    """Return the labelled photos in a folder and below. Raise OSError if it can't be read.

    If all its photos lie in the folder itself, its own name is their label.
    """
    found = photo_folders.find(folder)
    around, places = _places(found.photos, folder.resolve().name)
    labels: dict[str, str] = {}
    left_out: dict[tuple[str, str], LeftOut] = {}
    for path, (label, reason) in places.items():
        if fault := reason or label_fault(label):
            of = path if reason == BESIDE else str(PurePosixPath(path).parent)
            known = left_out.get((of, fault), LeftOut(of, fault, files=0))
            left_out[of, fault] = replace(known, files=known.files + 1, photos=known.photos + 1)
        else:
            labels[path] = canonical(label)
    return LabelledFolder(
        "".join(f"{name}/" for name in around), dict(sorted(labels.items())), [*left_out.values(), *found.left_out]
    )


def _places(paths: Sequence[str], own_name: str) -> tuple[tuple[str, ...], dict[str, tuple[str, str]]]:
    """Return the folders around the labels', and for each path its label, or else why it has none."""
    folders = {path: PurePosixPath(path).parts[:-1] for path in paths}
    if not any(folders.values()):
        return (), dict.fromkeys(paths, _place((own_name,), 0, frozenset()))
    years = any(map(_of_year, folders.values()))
    of_years = {parts for parts in folders.values() if _of_year(parts, unknown=years)}
    above = frozenset(parts[:end] for parts in of_years for end in range(1, len(parts)))
    around = _around([parts for parts in folders.values() if parts and parts not in of_years | above])
    return around, {path: _place(parts, len(around), above) for path, parts in folders.items()}


def _place(parts: tuple[str, ...], around: int, above: frozenset[tuple[str, ...]]) -> tuple[str, str]:
    """Return the label of a photo in these folders, or else why it has none. `above` are the folders that those of years lie in."""
    if label := _of_year(parts, unknown=bool(above)):
        return label, ""
    if not parts or parts in above:
        return "", BESIDE
    is_named = not read(parts[-1]).problem
    if _is_year(parts[-1]) or (any(map(_is_year, parts[:-1])) and not is_named):
        return "", YEAR_ALONE  # it would be a year, or a colour
    if parts[:1] in above and not is_named:
        return "", NO_YEAR_OF  # it would be a model
    return ("", TOO_DEEP) if len(parts) > around + 1 else (parts[-1], "")


def _is_year(folder: str) -> bool:
    """Return whether the name of a folder is a year, or several: `2012`, `2009-2011`."""
    return all(map(_YEAR.fullmatch, normalise(folder).split() or [""]))


def _of_year(parts: tuple[str, ...], *, unknown: bool = False) -> str:
    """Return the label of a photo in folders of make, model and year, and maybe a colour; empty if it is in none.

    `unknown` takes a folder of that name for one of a year that is not known.
    """
    for end in (len(parts), len(parts) - 1):
        if end < 3:
            break
        make, model, year = parts[end - 3 : end]
        no_year = unknown and year.lower() == _NOT_KNOWN
        if no_year or _YEAR.fullmatch(year):
            # A label's make ends at its first underscore.
            return f"{make.replace('_', ' ')}_{model}_{NO_YEAR if no_year else year}"
    return ""


def _around(folders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the folders that all of these lie in, none of which is one of these."""
    if not folders:
        return ()
    shared, shortest = 0, min(map(len, folders))
    while shared < shortest - 1 and len({parts[shared] for parts in folders}) == 1:
        shared += 1
    return folders[0][:shared]
