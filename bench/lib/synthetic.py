"""Embeddings of photos that nobody took, with the structure of real ones, as many as you like.

    python -m bench.lib.synthetic make REAL OUT --photos 300000
    python -m bench.lib.synthetic check REAL

REAL is what `vmmr-embedder embed` wrote, or an index: models/stanford-cars is there. OUT becomes what `embed` would write
of such photos (OUT/embeddings), and queries: other photos of the same cars (OUT/queries.npz). `check` makes as many photos
as REAL has, of as many cars, and prints what a search makes of both. docs/scaling.md says how it is done.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.embeddings import Embeddings
from search_svc.dataset.photo_list import COLUMNS
from search_svc.index.version import IndexVersion
from svckit.artifact import atomic_directory, write_manifest
from svckit.cli import progress

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# What the covariances do not tell: found by trying some hundred combinations until the similarities and the accuracy of
# `check models/stanford-cars` were those of the real photos.
FAMILY = 5
"""Cars of one family: years of a model, models that share a body."""
KINSHIP = (0.1, 0.7)
"""The share of a car's own place that is its family's: as likely little as most."""
CLASS_SPREAD, PHOTO_SPREAD = 0.18, 0.38
"""Log-normal: how far classes differ in how far their photos lie from their centre, and photos of one class."""
VIEWS, VIEW_SHARE = 4, 0.14
"""Photos are taken from one of so many sides, the same for all cars: a share of how far they lie from their centre."""
STRAY = 0.12
"""How far photos lie on the way to some other car, of the way there: half normal."""

PHOTOS_A_CLASS, SIZE_SPREAD = 31.8, 1.5
"""VMMRdb's, log-normal: 291,752 photos of 9,170 classes, a third of which has more than 20 photos, and 84 % of all."""

_BLOCK = 40 * FAMILY
"""Classes that are drawn together."""
_ROWS = 8192
_MAKE = 12
"""Families of one make."""


@dataclass(frozen=True)
class Real:
    """Real embeddings, of unit length, and the class of each."""

    vectors: Floats  # (N, dimension)
    classes: Ints  # (N,) numbers from 0
    model: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the photos of an index, or the train photos of embeddings."""
        if (path / "CURRENT").exists():
            version = IndexVersion.open(path)
            return cls(_unit(version.embeddings), version.items.label_of.astype(np.int64), version.manifest.model)
        embeddings = Embeddings.open(path)
        rows = [row for row, photo in enumerate(embeddings.photos) if photo.split == "train"]
        labels = [embeddings.photos[row].label.label for row in rows]
        return cls(_unit(embeddings.matrix[rows]), np.unique(labels, return_inverse=True)[1], embeddings.model)


@dataclass(frozen=True)
class Structure:
    """Where cars are, and where the photos of one are around it."""

    mean: Floats  # (dimension,)
    between: Floats  # (b, dimension): the covariance of the classes' centres is between.T @ between
    within: Floats  # (w, dimension): the same, of photos around their class' centre

    @classmethod
    def fit(cls, real: Real) -> Self:
        """Fit the structure of real embeddings.

        The centre of n photos is off by a nth of their spread, so that share is taken out of what centres differ by.
        """
        counts = np.bincount(real.classes)
        centres = np.zeros((len(counts), real.vectors.shape[1]), np.float32)
        np.add.at(centres, real.classes, real.vectors)
        centres /= counts[:, None]
        mean = real.vectors.mean(0)
        rest, off = real.vectors - centres[real.classes], centres - mean
        within = rest.T @ rest / (len(rest) - len(counts))
        between = off.T @ off / (len(counts) - 1) - within * (1 / counts).mean()
        return cls(mean, _root(between), _root(within))


@dataclass(frozen=True)
class Cars:
    """As many photos as wanted, class by class; the same seed gives the same ones."""

    structure: Structure
    sizes: Ints  # (classes,) photos of each
    seed: int

    @property
    def photos(self) -> int:
        return int(self.sizes.sum())

    def gallery(self) -> Iterator[Floats]:
        """Yield the photos in blocks (some thousand, dimension), in the order of their classes."""
        for block in self._blocks():
            yield from self._drawn(block, self.sizes[block], 1)

    def queries(self, count: int) -> tuple[Floats, Ints]:
        """Return other photos (count, dimension) and their classes, each as frequent as it is in the gallery."""
        rng = np.random.default_rng([self.seed, 1])
        counts = rng.multinomial(count, self.sizes / self.photos)
        drawn = [part for block in self._blocks() for part in self._drawn(block, counts[block], 2)]
        order = rng.permutation(count)
        return np.concatenate(drawn)[order], np.repeat(np.arange(len(counts)), counts)[order]

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, len(self.sizes), _BLOCK):
            yield slice(start, min(start + _BLOCK, len(self.sizes)))

    def _drawn(self, block: slice, counts: Ints, purpose: int) -> Iterator[Floats]:
        if not counts.any():
            return
        centres, spreads = self._classes(block)
        rng = np.random.default_rng([self.seed, purpose, block.start])
        classes = np.repeat(np.arange(len(counts)), counts)
        for start in range(0, len(classes), _ROWS):
            part = classes[start : start + _ROWS]
            yield self._around(centres, part, spreads[part] * _log_normal(rng, len(part), PHOTO_SPREAD), rng)

    def _around(self, centres: Floats, classes: Ints, lengths: Floats, rng: np.random.Generator) -> Floats:
        """Return a photo of each class at the given distance from its centre."""
        own = rng.standard_normal((len(classes), len(self.structure.within)), np.float32)
        seen = self._views()[rng.integers(VIEWS, size=len(classes))]
        noise = (
            np.sqrt(np.float32(VIEW_SHARE)) * seen + np.sqrt(np.float32(1 - VIEW_SHARE)) * own
        ) @ self.structure.within
        strays = STRAY * np.abs(rng.standard_normal((len(classes), 1), np.float32))
        others = centres[rng.integers(len(centres), size=len(classes))]
        return _unit(centres[classes] + strays * (others - centres[classes]) + (self._rest * lengths)[:, None] * noise)

    def _views(self) -> Floats:
        return np.random.default_rng([self.seed, 3]).standard_normal((VIEWS, len(self.structure.within)), np.float32)

    @property
    def _rest(self) -> np.float32:
        """Return the spread within a class that is left when part of it is straying."""
        between, within = (np.square(root).sum() for root in (self.structure.between, self.structure.within))
        return np.sqrt(np.float32(max(1 - 2 * STRAY**2 * between / within, 0.1)))

    def _classes(self, block: slice) -> tuple[Floats, Floats]:
        """Return the centres (n, dimension) and spreads (n,) of a block of classes."""
        rng = np.random.default_rng([self.seed, 0, block.start])
        count, rank = block.stop - block.start, len(self.structure.between)
        kinship = rng.uniform(*KINSHIP, (count, 1)).astype(np.float32)
        families = rng.standard_normal((_BLOCK // FAMILY, rank), np.float32)[np.arange(count) // FAMILY]
        places = np.sqrt(kinship) * families + np.sqrt(1 - kinship) * rng.standard_normal((count, rank), np.float32)
        return self.structure.mean + places @ self.structure.between, _log_normal(rng, count, CLASS_SPREAD)


def sizes(photos: int, seed: int) -> Ints:
    """Return how many photos each class has: as many in all as wanted, and at least one each."""
    classes = max(round(photos / PHOTOS_A_CLASS), 1)
    shares = np.random.default_rng([seed, 2]).lognormal(0, SIZE_SPREAD, classes)
    edges = np.rint(np.cumsum(shares) / shares.sum() * (photos - classes)).astype(np.int64)
    return 1 + np.diff(edges, prepend=0)


def make(real: Real, out: Path, photos: int, queries: int, seed: int) -> None:
    cars = Cars(Structure.fit(real), sizes(photos, seed), seed)
    dimension = real.vectors.shape[1]
    with atomic_directory(out) as draft:
        np.savez(draft / "queries.npz", **dict(zip(("vectors", "classes"), cars.queries(queries), strict=True)))
        artifact = draft / "embeddings"
        artifact.mkdir()
        matrix = np.lib.format.open_memmap(artifact / "embeddings.npy", "w+", np.float16, (photos, dimension))
        row = 0
        with progress(total=photos, desc="photos", unit="photo") as bar:
            for block in cars.gallery():
                matrix[row : row + len(block)] = block
                row += len(block)
                bar.update(len(block))
        matrix.flush()
        _write_items(artifact / "items.csv", cars.sizes)
        described = {"kind": "embeddings", "model": real.model, "model_name": "synthetic", "dimension": dimension}
        described |= {"count": photos, "dtype": "float16", "normalized": True, "skipped": 0, "seed": seed}
        write_manifest(artifact, described)


def _write_items(path: Path, counts: Ints) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number, count in enumerate(counts.tolist()):
            family = number // FAMILY
            make, model, year = f"make{family // _MAKE:05d}", f"model{family:06d}", 2000 + number % FAMILY
            label = f"{make}_{model}_{year}"
            writer.writerows((f"{label}/{photo:05d}.jpg", label, make, model, year, "train") for photo in range(count))


def check(real: Real, seed: int) -> None:
    """Print the same figures of real photos and of as many synthetic ones. A sixth of each are the queries."""
    counts = np.bincount(real.classes)
    cars = Cars(Structure.fit(real), counts, seed)
    synthetic = Real(np.concatenate(list(cars.gallery())), np.repeat(np.arange(len(counts)), counts), "synthetic")
    figures = [_figures(each) for each in (real, synthetic)]
    print(f"{len(real.vectors)} photos of {len(counts)} classes, {real.vectors.shape[1]}-d\n")
    print("| | real | synthetic |\n|---|---|---|")
    for name in figures[0]:
        print(f"| {name} | {figures[0][name]} | {figures[1][name]} |")


def _figures(photos: Real) -> dict[str, str]:
    rng = np.random.default_rng(0)
    asks = rng.permutation(len(photos.vectors)) % 6 == 0
    gallery, queries = photos.vectors[~asks], photos.vectors[asks]
    scores, found = _flat(gallery).search(queries, 10)
    right = photos.classes[~asks][found] == photos.classes[asks][:, None]
    pairs = (photos.vectors[rng.permutation(len(photos.vectors))] * photos.vectors).sum(1)
    return {
        "the nearest photo is of the right class": f"{right[:, 0].mean():.1%}",
        "the ten nearest are": f"{right.mean():.1%}",
        "similarity of the nearest (5, 50, 95 %)": _quantiles(scores[:, 0]),
        "similarity of the tenth": _quantiles(scores[:, 9]),
        "similarity of any two photos": _quantiles(pairs),
        **{f"recall@10 of {name}": f"{_recall(index, queries, found):.3f}" for name, index in _kinds(gallery)},
    }


def _kinds(gallery: Floats) -> Iterator[tuple[str, Any]]:
    """Return kinds of indexes that lose something, each in its own way."""
    for factory in ("SQ8", "SQ4", "PCA64,Flat", "PQ32", "RaBitQ", "IVF64,Flat"):
        index = faiss.index_factory(gallery.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(gallery)
        index.add(gallery)
        if not factory.startswith("IVF"):
            yield factory, index
            continue
        for nprobe in (1, 4, 16):
            index.nprobe = nprobe
            yield f"{factory}, nprobe {nprobe}", index


def _flat(vectors: Floats) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _recall(index: Any, queries: Floats, true: Ints) -> float:
    """Return the share of the truly nearest photos that the index finds."""
    _, found = index.search(queries, true.shape[1])
    return float(np.mean([len(np.intersect1d(*pair)) for pair in zip(found, true, strict=True)])) / true.shape[1]


def _quantiles(values: Floats) -> str:
    return ", ".join(f"{value:.2f}" for value in np.quantile(values, [0.05, 0.5, 0.95]))


def _unit(vectors: NDArray[Any]) -> Floats:
    vectors = np.asarray(vectors, np.float32)
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _root(covariance: Floats) -> Floats:
    """Return a root (r, dimension) of the covariance, root.T @ root, without directions that have no spread."""
    values, directions = np.linalg.eigh(covariance.astype(np.float64))
    kept = values > 1e-6 * values[-1]
    root: Floats = (directions[:, kept] * np.sqrt(values[kept])).T.astype(np.float32)
    return root


def _log_normal(rng: np.random.Generator, count: int, spread: float) -> Floats:
    """Return log-normal values (count,) with a mean square of 1."""
    return np.exp(spread * rng.standard_normal(count, np.float32) - spread**2).astype(np.float32)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    for name in ("make", "check"):
        command = commands.add_parser(name)
        command.add_argument("real", type=Path, metavar="REAL")
        command.add_argument("--seed", type=int, default=0)
    making = commands.choices["make"]
    making.add_argument("out", type=Path, metavar="OUT")
    making.add_argument("--photos", type=int, required=True)
    making.add_argument("--queries", type=int, default=2000)
    args = parser.parse_args(argv)
    real = Real.read(args.real)
    if args.command == "check":
        check(real, args.seed)
    else:
        make(real, args.out, args.photos, args.queries, args.seed)


if __name__ == "__main__":
    main()
