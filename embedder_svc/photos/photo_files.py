"""Photos for the offline steps: the files to take, and their pixels."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from vmmr import photo_folders
from vmmr.label_names import canonical

from embedder_svc.photos import preprocess
from embedder_svc.photos.manifest import Manifest
from embedder_svc.photos.preprocess import Limits, PhotoError, Resize
from svckit.cli import CommandError

LIMITS = Limits(max_bytes=256 << 20, max_pixels=89_000_000, max_aspect=50.0)
"""The limits offline, where the photos are one's own collection: wider than those for callers."""

Pixels = NDArray[np.uint8]
Made = TypeVar("Made")


def find(source: Path, folder: Path | None) -> list[Path]:
    """Return the photos in and below a directory, or, if `source` is a manifest of photos in `folder`, its train photos.

    A manifest without splits gives all its photos. Raise CommandError if there are none.
    """
    if source.is_dir():
        found = photo_folders.find(source)
        paths = [source / path for path in found.photos]
        if told := photo_folders.tally(found.left_out):
            print(f"{source}: {len(paths)} photos; {told}", file=sys.stderr)
    else:
        paths = [(folder or source.parent) / name for name in _of_train(Manifest.read(source), "path")]
    if not paths:
        raise CommandError(f"{source}: there are no photos")
    return paths


def labels(source: Path) -> list[str] | None:
    """Return the labels of the photos that `find` returns; None for a directory, or if the manifest has none."""
    if source.is_dir():
        return None
    manifest = Manifest.read(source)
    return list(map(canonical, _of_train(manifest, "label"))) if "label" in manifest.columns else None


def _of_train(manifest: Manifest, column: str) -> Sequence[str]:
    """Return a column of a manifest's train photos; of all photos if it has no splits."""
    values = manifest.column(column)
    if "split" not in manifest.columns:
        return values
    return [value for value, split in zip(values, manifest.column("split"), strict=True) if split == "train"]


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return `count` of the paths, evenly spread over them; all of them if there are no more than that."""
    if count >= len(paths):
        return list(paths)
    return [paths[number * len(paths) // count] for number in range(count)]


def whole(resize: Resize) -> Callable[[bytes], Pixels]:
    """Return what makes of a photo's content the pixels (side, side, 3) of the whole photo."""
    return lambda content: preprocess.decode(content, resize=resize, limits=LIMITS)


def batches(paths: Sequence[Path], read: Callable[[bytes], Pixels], size: int) -> Iterator[Pixels]:
    """Yield pixels (N, side, side, 3), as `read` makes them, of `size` photos at a time.

    Raise CommandError at a photo that can't be read.
    """
    for start in range(0, len(paths), size):
        yield np.stack([_pixels(path, read) for path in paths[start : start + size]])


def _pixels(path: Path, read: Callable[[bytes], Pixels]) -> Pixels:
    pixels = attempt(path, read)
    if isinstance(pixels, str):
        raise CommandError(f"{path}: {pixels}")
    return pixels


def read_pixels(path: Path, resize: Resize) -> Pixels | str:
    """Return the pixels (side, side, 3) of a photo, or why it has none."""
    return attempt(path, whole(resize))


def attempt(path: Path, use: Callable[[bytes], Made]) -> Made | str:
    """Return what `use` makes of a photo's content, or why it can't. A file that is too large is not read to its end."""
    return attempt_with(partial(_content, path), use)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIMITS.max_bytes + 1)


def attempt_with(read: Callable[[], bytes], use: Callable[[bytes], Made]) -> Made | str:
    """Return what `use` makes of the content of a photo that `read` returns, or why it can't."""
    try:
        return use(read())
    except PhotoError as error:
        return f"{error.reason}: {error.description}"
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # Python raises it for a NUL in a path
        return str(error)
