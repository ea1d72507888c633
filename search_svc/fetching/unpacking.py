"""Photos out of archives into the folder of a data set, which appears whole or not at all."""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from search_svc.fetching.annotations import Box
from search_svc.fetching.archives import MOST_BYTES_OF_ONE, members
from search_svc.fetching.layouts import LeftOutError, Place, Placement, is_photo
from svckit import cli
from svckit.artifact import ArtifactError, atomic_directory
from svckit.cores import cores
from svckit.photos.photo import Limits, Photo, PhotoError

_AT_ONCE = 64
"""Photos that are in memory."""
_QUALITY = 95
"""Of the JPEGs that photos are cut to."""
_LIMITS = Limits(max_bytes=MOST_BYTES_OF_ONE, max_pixels=100_000_000, max_aspect=100.0)


@dataclass
class Unpacked:
    """What became of the photos in the archives."""

    photos: Counter[str] = field(default_factory=Counter)
    """Photos by label."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Photos that were not taken, by the reason."""


def unpack(archives: Sequence[Path], place: Place, out: Path, finish: Callable[[Path, Unpacked], None]) -> Unpacked:
    """Write the photos of the archives to a new folder `out`, each to its place, and return what became of them.

    `finish` is given the folder once it is full, and may add to it, or raise an error: then there is no folder.
    """
    done = Unpacked()
    with (
        # One call for all files: to flush each of hundreds of thousands takes longer than to unpack them.
        atomic_directory(out, settle=lambda _: os.sync()) as draft,
        ThreadPoolExecutor(cores()) as pool,
        cli.progress(desc=out.name, unit=" photos") as bar,
    ):
        photos = _placed(archives, place, done)
        while batch := list(islice(photos, _AT_ONCE)):
            for placement, content in zip((each for each, _ in batch), pool.map(_taken, batch), strict=True):
                if isinstance(content, str):
                    done.left_out[content] += 1
                else:
                    _write(draft / placement.path, content)
                    done.photos[PurePosixPath(placement.path).parent.name] += 1
            bar.update(len(batch))
        finish(draft, done)
    return done


def _placed(archives: Iterable[Path], place: Place, done: Unpacked) -> Iterator[tuple[Placement, bytes]]:
    """Yield the content of each photo that has a place, and count the others."""
    taken: set[str] = set()
    for archive in archives:
        for member in members(archive):
            path = PurePosixPath(member.path)
            if not is_photo(path):
                continue
            try:
                placement = place(path)
            except LeftOutError as error:
                done.left_out[str(error)] += 1
                continue
            if placement.path in taken:
                done.left_out["its label has a photo of that name already"] += 1
                continue
            taken.add(placement.path)
            yield placement, member.read()


def _taken(photo: tuple[Placement, bytes]) -> bytes | str:
    """Return the photo as it is kept: as it came, or cut to its box; or why it can't be cut."""
    placement, content = photo
    return content if placement.box is None else _cut(content, placement.box)


def _cut(content: bytes, box: Box) -> bytes | str:
    try:
        image = Photo.open(content, _LIMITS).decode()
    except PhotoError as error:
        return f"can't be cut to its car: {error}"
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(image.width, box[2]), min(image.height, box[3])
    if left >= right or top >= bottom:
        return "the box around its car is not in the photo"
    cut = io.BytesIO()
    image.crop((left, top, right, bottom)).save(cut, "JPEG", quality=_QUALITY)
    return cut.getvalue()


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ArtifactError(path, error.strerror or str(error)) from error
