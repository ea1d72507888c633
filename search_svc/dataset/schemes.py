"""Schemes that divide photos into splits. They depend on nothing but the names of the files."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from search_svc.dataset.collection import Collection, Remark
from search_svc.dataset.photo_list import Photo
from search_svc.voting import labels
from svckit.cli import CommandError
from svckit.manifests import Split

Makes = frozenset[str]
"""Makes of several words, normalised."""
Cuts = Callable[[int], tuple[int, int]]
"""Maps the number of a label's photos to the places, in their shuffled order, where dev and where test begins."""

PARTS: tuple[Split, ...] = ("train", "dev", "test")
"""The splits into which the photos of one label are divided."""

_SEED = 230
"""The seed of the blog post named below."""
_UNSEEN_DEV = 5
"""The first of every so many unseen labels is for unseen-dev."""


def eighty_ten_ten_cuts(photos: int) -> tuple[int, int]:
    """Cut at int(0.8 n) and int(0.9 n), so that dev and test may be empty, or train.

    From the blog post "Building a Car Model Classifier, Part 1" (wasdkhan/car-reverse-image-search).
    """
    return int(0.8 * photos), int(0.9 * photos)


def stratified_cuts(photos: int) -> tuple[int, int]:
    """Give dev and test a tenth each, and at least one photo. Of two photos one is for test; a lone one is for train."""
    if photos < 3:
        return 1, 1
    held_out = max(1, round(photos / 10))
    return photos - 2 * held_out, photos - held_out


CUTS: Mapping[str, Cuts] = {"blog": eighty_ten_ten_cuts, "stratified": stratified_cuts}


def divide(collection: Collection, cuts: Cuts, makes: Makes = frozenset()) -> list[Photo]:
    """Return every photo of the collection, sorted by path. The same files are always divided the same way.

    `makes` are makes of several words that labels may begin with.
    """
    photos = []
    for name, paths in collection.classes.items():
        label = labels.parse(name, makes)
        dev, test = cuts(len(paths))
        for place, path in enumerate(_shuffled(paths)):
            photos.append(Photo(path, label, PARTS[(place >= dev) + (place >= test)]))
    return sorted(photos, key=_path)


def divide_by_lists(
    collection: Collection, lists: Mapping[Split, Path], makes: Makes = frozenset()
) -> tuple[list[Photo], list[Remark]]:
    """Return the photos that the lists name, sorted by path, and remarks on the photos that no list names.

    A list has a line `label/file` for each photo. Raises CommandError, with the line, if a list names a photo that is not in
    the collection, or that was named before.
    """
    unnamed = {path.removeprefix(collection.top): name for name, paths in collection.classes.items() for path in paths}
    photos: dict[str, Photo] = {}
    for split, path in lists.items():
        for place, line in _lines(path):
            name = str(PurePosixPath(line)).removeprefix(collection.top)
            if name in photos:
                raise CommandError(f"{place}: {line!r} was in {photos[name].split} already")
            if name not in unnamed:
                raise CommandError(f"{place}: {line!r} is not among the photos")
            photos[name] = Photo(f"{collection.top}{name}", labels.parse(unnamed.pop(name), makes), split)
    remarks = [Remark(f"{collection.top}{name}", "in none of the lists") for name in unnamed]
    return sorted(photos.values(), key=_path), remarks


def hold_out(photos: Sequence[Photo], count: int) -> list[Photo]:
    """Move all photos of the last `count` labels, in the order of their names, to the unseen splits.

    The first of these labels and every fifth after it goes to unseen-dev, the others to unseen-test. Raises CommandError if
    `count` is below 2, which leaves an unseen split without labels, or if fewer than two labels are left.
    """
    names = sorted({photo.label.label for photo in photos})
    if not 2 <= count <= len(names) - 2:
        raise CommandError(f"--unseen must be 2 or more, and leave 2 of the {len(names)} labels, got {count}")
    unseen: dict[str, Split] = {
        name: "unseen-test" if place % _UNSEEN_DEV else "unseen-dev" for place, name in enumerate(names[-count:])
    }
    return [replace(photo, split=unseen.get(photo.label.label, photo.split)) for photo in photos]


def _shuffled(paths: Sequence[str]) -> list[str]:
    """Shuffle the photos of one label, always from the same seed: the order of the blog post."""
    shuffled = list(paths)
    random.Random(_SEED).shuffle(shuffled)  # noqa: S311 - not for secrets
    return shuffled


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place ("FILE: line N") and the text of each line that is not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: not text in UTF-8: {error}") from error
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if line:
            yield f"{path}: line {number}", line


def _path(photo: Photo) -> str:
    return photo.path
