"""The photos of a split, with their labels as numbers, and their pixels decoded once for all epochs."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from vmmr.label_names import canonical

from embedder_svc.photos import photo_files
from embedder_svc.photos.manifest import Manifest
from embedder_svc.photos.resize import Resize
from embedder_svc.training.batches import Pixels
from svckit.artifact import atomic_directory
from svckit.cli import CommandError, progress

_COLUMNS = {"label", "make", "split"}
_NAMES = {"label", "make", "model"}
_PIXELS = "pixels.npy"
_PART = 64
"""The number of photos that a thread decodes in one task."""


@dataclass(frozen=True)
class Photos:
    """Photos of one split; `labels` and `makes` number the classes of the training photos, and the makes of all photos."""

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    makes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Collection:
    classes: tuple[str, ...]
    train: Photos
    dev: Photos
    """Dev photos of classes that the training photos show; may be empty."""

    @classmethod
    def read(cls, manifest: Path) -> "Collection":
        """Read the train and dev photos of a manifest.csv, and of no other split. Raise CommandError or ArtifactError."""
        rows = _rows(manifest)
        train = [row for row in rows if row["split"] == "train"]
        classes = {label: number for number, label in enumerate(sorted({row["label"] for row in train}))}
        if len(classes) < 2:
            raise CommandError(f"{manifest}: training needs photos of at least 2 classes, found {len(classes)}")
        dev = [row for row in rows if row["split"] == "dev" and row["label"] in classes]
        makes = {make: number for number, make in enumerate(sorted({row["make"] for row in train + dev}))}
        return cls(tuple(classes), _photos(train, classes, makes), _photos(dev, classes, makes))

    @property
    def identity(self) -> str:
        """Return a fingerprint that changes with any photo's path, label or split."""
        splits = [[photos.paths, photos.labels.tolist()] for photos in (self.train, self.dev)]
        return hashlib.sha256(json.dumps([self.classes, splits]).encode()).hexdigest()


@dataclass(frozen=True)
class Decoded:
    """The photos of a split with their pixels (N, S, S, 3) RGB."""

    photos: Photos
    pixels: Pixels

    @classmethod
    def read(cls, photos: Photos, folder: Path, cache: Path, resize: Resize) -> "Decoded":
        """Memory-map the pixels from a file under `cache`, after making it if there is none of these photos.

        Raise CommandError naming the photo that can't be read.
        """
        if not photos:  # an empty file can't be memory-mapped
            return cls(photos, np.empty((0, resize.size, resize.size, 3), np.uint8))
        directory = cache / f"pixels-{_identity(photos, folder, resize)}"
        if not directory.exists():
            with atomic_directory(directory) as draft:
                _decode_all(photos, folder, draft / _PIXELS, resize)
        return cls(photos, np.load(directory / _PIXELS, mmap_mode="r"))


def _rows(path: Path) -> list[dict[str, str]]:
    manifest = Manifest.read(path)
    if missing := _COLUMNS - set(manifest.columns):
        raise CommandError(f"{path}: has no column {', '.join(sorted(missing))}")
    rows = [dict(zip(manifest.columns, row, strict=True)) for row in manifest.rows]
    return [row | {name: canonical(row[name]) for name in _NAMES & row.keys()} for row in rows]


def _photos(rows: Sequence[dict[str, str]], classes: dict[str, int], makes: dict[str, int]) -> Photos:
    return Photos(
        tuple(row["path"] for row in rows),
        np.array([classes[row["label"]] for row in rows], np.int64),
        np.array([makes[row["make"]] for row in rows], np.int64),
    )


def _identity(photos: Photos, folder: Path, resize: Resize) -> str:
    """Return a key that changes with any photo's path or size in bytes, so that pixels of other photos are never taken for these."""
    try:
        sizes = [(path, (folder / path).stat().st_size) for path in photos.paths]
    except FileNotFoundError as error:
        raise CommandError(f"{error.filename}: the manifest lists it, but there is no such photo") from error
    content = json.dumps([resize.rule, resize.size, sizes])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _decode_all(photos: Photos, folder: Path, target: Path, resize: Resize) -> None:
    shape = (len(photos), resize.size, resize.size, 3)
    pixels = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)

    def decode_part(start: int) -> int:
        paths = photos.paths[start : start + _PART]
        for number, path in enumerate(paths, start):
            pixels[number] = _decode(folder / path, resize)  # here, so that no photo waits in memory to be written
        return len(paths)

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress(total=len(photos), desc="decoding", unit="photo") as bar:
        for count in pool.map(decode_part, range(0, len(photos), _PART)):
            bar.update(count)
    pixels.flush()


def _decode(path: Path, resize: Resize) -> photo_files.Pixels:
    pixels = photo_files.read_pixels(path, resize)
    if isinstance(pixels, str):
        raise CommandError(f"{path}: {pixels}; take it out of the manifest")
    return pixels
