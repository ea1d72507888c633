"""Where a data set's photos go: into a folder for each label, cut to their car where the data set says where it is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmmr.label_names import canonical, label_fault
from vmmr.photo_names import clutter, has_photo_name, name_fault

from search_svc.fetching import annotations, archives
from search_svc.fetching.annotations import Annotation, Box, Key
from svckit.artifact import ArtifactError


@dataclass(frozen=True)
class Placement:
    path: str
    """`label/file`."""
    box: Box | None
    """The part of the photo that is taken; None for all of it."""


class LeftOutError(Exception):
    """A photo has no place; the message says why."""


Place = Callable[[PurePosixPath], Placement]
"""Maps the path of a photo in an archive to its place. Raises LeftOutError."""

_PARTS = ("train", "test")


def stanford_cars(files: Iterable[Path], *, whole: bool) -> Place:
    """Return where Stanford Cars' photos go, by the annotations that are in these archives: `label/train_00001.jpg`."""
    known = annotations.read(_annotation_files(files))

    def place(path: PurePosixPath) -> Placement:
        label, part, box = _stanford(path, known)
        if box is None and not whole:
            raise LeftOutError("no box around its car is known (--whole takes such photos as they are)")
        return Placement(f"{label}/{part}_{path.name}", None if whole else box)

    return place


def _stanford(path: PurePosixPath, known: Mapping[Key, Annotation]) -> tuple[str, str, Box | None]:
    """Return the label of a photo, its part, and its box if there is one."""
    folder, around = path.parent.name, path.parent.parent.name
    if found := known.get((folder, path.name)):
        return found.label, found.part, found.box
    if around not in _PARTS:
        raise LeftOutError("no annotation names it")
    label = annotations.label_of(folder)
    found = known.get((around, path.name))
    if found and found.label != label:
        raise LeftOutError("its annotation names another car than its folder")
    return label, around, found.box if found else None


def _annotation_files(files: Iterable[Path]) -> dict[str, bytes]:
    found = {}
    for archive in files:
        for member in archives.members(archive):
            name = PurePosixPath(member.path).name
            if name in annotations.FILES and not _is_clutter(PurePosixPath(member.path)):
                if member.size > annotations.MOST_BYTES:
                    raise ArtifactError(archive, f"{member.path!r} has {member.size} bytes: too many for annotations")
                found[name] = member.read()
    return found


def vmmrdb(_: Iterable[Path], *, whole: bool) -> Place:  # noqa: ARG001 - there are no boxes: all photos are whole
    """Return where VMMRdb's photos go: into the folders that they lie in, whatever lies around these."""

    def place(path: PurePosixPath) -> Placement:
        label = canonical(path.parent.name)
        if not path.parent.name:
            raise LeftOutError("not in a folder named after a label")
        if fault := label_fault(label):
            raise LeftOutError(fault)
        return Placement(f"{label}/{path.name}", None)

    return place


LAYOUTS: Mapping[str, Callable[..., Place]] = {"stanford-cars": stanford_cars, "vmmrdb": vmmrdb}
"""What knows each data set."""


def is_photo(path: PurePosixPath) -> bool:
    """Return whether a file of an archive is one of the data set's photos, by its name."""
    return has_photo_name(path) and not _is_clutter(path) and not name_fault(path.name)


def _is_clutter(path: PurePosixPath) -> bool:
    return any(map(clutter, path.parts))
