"""Find the labelled photos that a command line names: files, URLs, and folders whose names are labels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmmr.photo_names import has_photo_name


@dataclass(frozen=True)
class Labelled:
    """The name of a photo, and its label."""

    name: str
    label: str


def labelled(names: Iterable[str], label: str | None) -> list[Labelled]:
    """Return the photos with these names; for a folder, all photos in it and below.

    Without `label`, a photo's label is the name of its folder. Raise ValueError for a photo that has no label, and for a
    folder without photos.
    """
    return [each for name in names for each in _of(name, label)]


def _of(name: str, label: str | None) -> Sequence[Labelled]:
    if Path(name).is_dir():
        photos = list(_photos(Path(name)))
        if not photos:
            raise ValueError(f"{name}: there are no photos in that folder")
        labels: dict[Path, str] = {}
        for photo in photos:
            if photo.parent not in labels:
                labels[photo.parent] = label or folder_label(photo)
        return [Labelled(str(photo), labels[photo.parent]) for photo in photos]
    if not label:
        raise ValueError(f"{name}: say what it shows with --label; only photos in a folder have its name for one")
    return [Labelled(name, label)]


def _photos(folder: Path) -> Iterator[Path]:
    """Yield the photos in the folder and below, in a stable order, without hidden ones."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if has_photo_name(path) and not hidden:
            yield path


def folder_label(photo: Path) -> str:
    """Return the name of the folder that the photo is in. Raise ValueError if that holds folders of photos, too."""
    folder = photo.parent
    if any(next(_photos(other), None) for other in folder.iterdir() if other.is_dir()):
        raise ValueError(
            f"{photo} lies beside folders of photos, so that folder's name is no label: give --label, or move it"
        )
    return folder.resolve().name
