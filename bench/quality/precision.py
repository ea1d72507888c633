"""Bundles side by side: `python -m bench.quality.precision MANIFEST --photos DIR --work DIR BUNDLE BUNDLE ...`.

For precisions of one checkpoint (fp32 first: the others are compared with it), and for choosing a resize rule, an input size
or the mirror image on dev. Each bundle embeds the train photos, which are the gallery, and the photos of a split; every photo
of the split is answered by its nearest neighbour. Embeddings that lie under --work, of the same bundle and with all of the
photos, are used as they are; others are made there.

CPU speed is in photos a CPU-second of one thread, bundles taking turns, which other work on the machine disturbs little.
"""

import argparse
import csv
import hashlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedder_svc.network import bundle
from embedder_svc.network.bundle import BundleInfo
from embedder_svc.network.model import Model
from embedder_svc.network.runtime import DeviceError
from embedder_svc.offline.chunks import LocalEmbedder, Work
from embedder_svc.offline.embed import embed
from embedder_svc.photos.manifest import Manifest
from embedder_svc.photos.photo_folder import LocalFolder
from svckit.cli import progress
from svckit.cores import cores

WITHIN = 0.3
"""Points of top-1 that a smaller file may cost."""
RESAMPLES, SEED = 2000, 230
CPU_PHOTOS, GPU_PHOTOS, ROUNDS = 8, 512, 5


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    photos = Photos.read(args.manifest, args.split.split(","), args.per_class)
    infos = [bundle.read(path) for path in args.bundles]
    found = [_embeddings(*pair, photos, args) for pair in zip(args.bundles, infos, strict=True)]
    speeds = _speeds(args.bundles, args.rounds)
    for split in args.split.split(","):
        hits = [photos.hits(vectors, split) for vectors in found]
        rows = [Row.of(*row, hits[0].top1) for row in zip(args.bundles, infos, hits, strict=True)]
        print(f"\n{split}: {len(hits[0].top1)} photos, {photos.count('train')} in the gallery\n")
        _print(rows, speeds)
        if split == "dev":
            _choose(rows)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="the first is the reference")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="where the manifest's paths start")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where embeddings are, and are made")
    parser.add_argument("--split", default="dev", help="dev (default), test, or dev,test; test once, at the end")
    parser.add_argument("--per-class", type=int, metavar="N", help="at most N photos of a class in each split: a try")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns that each bundle has at being timed")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Hits:
    """Of each photo of a split, whether its neighbours are right."""

    top1: NDArray[np.bool_]
    top5: NDArray[np.bool_]
    """The class is among those of the 5 nearest photos."""
    make: NDArray[np.bool_]


@dataclass(frozen=True)
class Photos:
    """The manifest's photos of `train`, and of the splits to measure those of the same labels."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]

    @classmethod
    def read(cls, path: Path, splits: Sequence[str], per_class: int | None) -> Self:
        manifest = Manifest.read(path)
        rows = [dict(zip(manifest.columns, cells, strict=True)) for cells in manifest.rows]
        labels = {row["label"] for row in rows if row["split"] == "train"}
        seen: dict[tuple[str, str], int] = defaultdict(int)
        kept = []
        for row in rows:
            group = (row["split"], row["label"])
            seen[group] += 1
            if (
                row["label"] in labels
                and row["split"] in ("train", *splits)
                and seen[group] <= (per_class or sys.maxsize)
            ):
                kept.append(row)
        return cls(manifest.columns, kept)

    @property
    def paths(self) -> list[str]:
        return [row["path"] for row in self.rows]

    def count(self, split: str) -> int:
        return sum(row["split"] == split for row in self.rows)

    def hits(self, vectors: NDArray[np.float32], split: str) -> Hits:
        """Return which queries are right, by cosine. `vectors` has a row for each of these photos; the gallery is `train`."""
        queries, gallery = (np.flatnonzero([row["split"] == name for row in self.rows]) for name in (split, "train"))
        labels, makes = (np.array([row[name] for row in self.rows]) for name in ("label", "make"))
        nearest = gallery[_nearest(vectors[queries], vectors[gallery])]
        same = labels[nearest] == labels[queries, None]
        return Hits(same[:, 0], same.any(1), makes[nearest[:, 0]] == makes[queries])

    def write(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def _nearest(queries: NDArray[np.float32], gallery: NDArray[np.float32], count: int = 5) -> NDArray[np.int64]:
    """Return the rows (Q, count) of the photos nearest to each query, the nearest first."""
    directions = _units(gallery).T
    parts = np.array_split(_units(queries), -(-len(queries) // 256))
    return np.concatenate([np.argsort(-(part @ directions), 1, kind="stable")[:, :count] for part in parts])


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    units: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def _embeddings(path: Path, info: BundleInfo, photos: Photos, args: argparse.Namespace) -> NDArray[np.float32]:
    """Return the embeddings of all photos, row by row."""
    for manifest in args.work.glob("*/manifest.json"):
        if json.loads(manifest.read_text()).get("model") == info.fingerprint:
            found = _read(manifest.parent)
            if found.keys() >= set(photos.paths):
                print(f"{path}: embeddings in {manifest.parent}", file=sys.stderr)
                return np.stack([found[name] for name in photos.paths]).astype(np.float32)
    _embed(path, info, photos, args)
    return _embeddings(path, info, photos, args)


def _read(directory: Path) -> dict[str, NDArray[Any]]:
    with (directory / "items.csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    return dict(zip(paths, np.load(directory / "embeddings.npy", mmap_mode="r"), strict=True))


def _embed(path: Path, info: BundleInfo, photos: Photos, args: argparse.Namespace) -> None:
    args.work.mkdir(parents=True, exist_ok=True)
    chosen = hashlib.sha256("\n".join(photos.paths).encode()).hexdigest()
    out = args.work / f"{info.name}-{info.fingerprint[:8]}-{chosen[:8]}"
    photos.write(out.with_suffix(".csv"))
    model = Model.open(path, device="auto")
    bar = partial(progress, desc=info.name, unit="photo")
    work = Work(LocalFolder(args.photos), "float16", whole=False)
    made = embed(
        Manifest.read(out.with_suffix(".csv")), work, LocalEmbedder(model, work, workers=cores()), out, bar=bar
    )
    if made["skipped"]:
        sys.exit(f"{out}/unreadable.csv: {made['skipped']} photos can't be read; take them out of the manifest")


@dataclass(frozen=True)
class Row:
    bundle: Path
    info: BundleInfo
    megabytes: float
    top1: float
    top5: float
    make: float
    difference: float
    """Of top-1 to the first bundle's, in points."""
    interval: tuple[float, float]
    """95 % of the difference, by a bootstrap over the photos, each of which both bundles answer."""

    @classmethod
    def of(cls, path: Path, info: BundleInfo, hits: Hits, reference: NDArray[np.bool_]) -> Self:
        top1, top5, make = (100 * float(values.mean()) for values in (hits.top1, hits.top5, hits.make))
        difference = 100 * (hits.top1.astype(float) - reference)
        return cls(path, info, _megabytes(path), top1, top5, make, float(difference.mean()), interval(difference))


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of the values."""
    rng = np.random.default_rng(SEED)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _megabytes(path: Path) -> float:
    return sum(file.stat().st_size for file in path.iterdir()) / 1e6


@dataclass(frozen=True)
class Speeds:
    """Photos a second, bundle by bundle."""

    cpu: list[float]
    gpu: list[float] | None


def _speeds(bundles: Sequence[Path], rounds: int) -> Speeds:
    cpu = [Model.open(path, device="cpu", threads=1) for path in bundles]
    cpu_speeds = _in_turns([partial(_time, model, CPU_PHOTOS, time.process_time) for model in cpu], rounds)
    try:
        gpu = [Model.open(path, device="cuda", max_batch=64) for path in bundles]
    except DeviceError as error:
        print(f"\nNO GPU: CUDA IS NOT MEASURED, ITS COLUMN IS LEFT OUT ({error})\n", file=sys.stderr)
        return Speeds(cpu_speeds, None)
    return Speeds(
        cpu_speeds, _in_turns([partial(_time, model, GPU_PHOTOS, time.perf_counter) for model in gpu], rounds)
    )


def _in_turns(timed: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """Return the best of some rounds, in turns. One more, the first, in which memory is allocated, does not count."""
    measured = [[run() for run in timed] for _ in range(1 + rounds)]
    return [max(speeds) for speeds in zip(*measured[1:], strict=True)]


def _time(model: Model, count: int, clock: Callable[[], float]) -> float:
    side = model.info.input_size
    photos = np.random.default_rng(SEED).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    start = clock()
    model.embed(photos)
    return count / (clock() - start)


def _print(rows: Sequence[Row], speeds: Speeds) -> None:
    print(
        "| bundle | precision | resize | size | flip | floats | MB | top-1 | top-5 | make | top-1 less the first's [95 %] "
        "| photos a CPU-second | of the first's |" + (" photos/s, CUDA | of the first's |" if speeds.gpu else "")
    )
    print("|---" * (13 + 2 * bool(speeds.gpu)) + "|")
    for number, row in enumerate(rows):
        info, (low, high) = row.info, row.interval
        cells = [
            row.bundle.name, info.precision, info.resize, info.input_size, "yes" if info.flip else "no", info.dimension,
            f"{row.megabytes:.1f}", f"{row.top1:.2f}", f"{row.top5:.2f}", f"{row.make:.2f}",
            f"{row.difference:+.2f} [{low:+.2f}, {high:+.2f}]" if number else "",
            *_speed_cells(speeds.cpu, number), *(_speed_cells(speeds.gpu, number) if speeds.gpu else ()),
        ]  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |")


def _speed_cells(speeds: Sequence[float], number: int) -> tuple[str, str]:
    return f"{speeds[number]:.1f}", f"{speeds[number] / speeds[0]:.2f}"


def _choose(rows: Sequence[Row]) -> None:
    best = max(rows, key=lambda row: row.top1)
    enough = [row for row in rows if row.top1 >= rows[0].top1 - WITHIN]
    print(f"\nbest top-1: {best.bundle.name}")
    print(f"smallest within {WITHIN} points of the first: {min(enough, key=lambda row: row.megabytes).bundle.name}")


if __name__ == "__main__":
    main()
