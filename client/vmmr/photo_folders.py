"""Find the photos in a folder and below, and account for every file that is none."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vmmr.photo_names import clutter, has_photo_name, name_fault

NOT_A_PHOTO = "not a photo file"
_Folder = tuple[int, int]
"""The device and inode of a folder."""


@dataclass(frozen=True)
class LeftOut:
    """A file, or a folder with all that is in it, that is not taken, and the reason."""

    path: str
    """The path below the folder that was searched, with `/`."""
    reason: str
    files: int = 1
    """How many files that are."""
    photos: int = 0
    """How many of these files have the name of a photo."""
    expected: bool = False
    """Whether such files are left out everywhere: hidden ones, those of the system, and those that are no photos."""


@dataclass
class Found:
    """The files in a folder and below."""

    photos: list[str] = field(default_factory=list)
    """The paths of the photos below the folder, with `/`, in the order of their names."""
    left_out: list[LeftOut] = field(default_factory=list)


def find(folder: Path) -> Found:
    """Return the photos in a folder and below, and what is left out of it. Links are followed. Raise OSError if it can't be read."""
    found = Found()
    _search(folder, "", found, (_identity(folder.stat()),))
    return found


def tally(left_out: Iterable[LeftOut]) -> str:
    """Return how many files were left out for which reason, in words; empty if none were."""
    counts: Counter[str] = Counter()
    for each in left_out:
        counts[each.reason] += each.files
    total = counts.total()
    if not total:
        return ""
    ordered = sorted(counts.items(), key=lambda counted: (-counted[1], counted[0]))
    reasons = "; ".join(f"{reason} ({count})" for reason, count in ordered if count)
    return f"{total} {'file' if total == 1 else 'files'} left out: {reasons}"


def _search(folder: Path | str, prefix: str, found: Found, above: tuple[_Folder, ...]) -> None:
    """Add what is in a folder. `above` are the folders that it lies in, itself included: a link may lead back to one."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        reason, inside = _verdict(entry, above)
        if inside:
            try:
                _search(entry.path, f"{path}/", found, (*above, inside))
            except OSError as error:
                found.left_out.append(LeftOut(path, f"can't be read: {error.strerror}", files=0))
        elif reason:
            found.left_out.append(_left_out(entry, path, reason))
        else:
            found.photos.append(path)


def _verdict(entry: "os.DirEntry[str]", above: tuple[_Folder, ...]) -> tuple[str | None, _Folder | None]:
    """Return why an entry is left out, and the folder that it is if it has to be searched. Neither: it is a photo."""
    if reason := clutter(entry.name) or name_fault(entry.name):
        return reason, None
    if _is_folder(entry):
        if has_photo_name(entry.name):
            return "in a folder that has the name of a photo", None
        inside = _identity(entry.stat())
        return ("a link to a folder that it lies in", None) if inside in above else (None, inside)
    if not has_photo_name(entry.name):
        return NOT_A_PHOTO, None
    if not _is_file(entry):
        return "a link that leads nowhere" if entry.is_symlink() else "neither a file nor a folder", None
    return None, None


def _left_out(entry: "os.DirEntry[str]", path: str, reason: str) -> LeftOut:
    expected = bool(clutter(entry.name)) or reason == NOT_A_PHOTO
    if not _is_folder(entry):
        return LeftOut(path, reason, photos=int(has_photo_name(entry.name)), expected=expected)
    if entry.is_symlink():  # what it leads to is counted where it lies, if that is in the folder
        return LeftOut(path, reason, files=0, expected=expected)
    names = list(_files(entry.path))
    return LeftOut(path, reason, len(names), sum(map(has_photo_name, names)), expected=expected)


def _files(folder: str) -> Iterator[str]:
    """Yield the names of the files in a folder and below; none of a folder that can't be read."""
    for _, _, names in os.walk(folder):
        yield from names


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _identity(status: os.stat_result) -> _Folder:
    return status.st_dev, status.st_ino
