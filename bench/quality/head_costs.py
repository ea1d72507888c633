"""What an embedding's dimension costs: `python -m bench.quality.head_costs BUNDLE BUNDLE ...`, bundles that differ in their heads.

CPU milliseconds, medians of rounds in which the bundles take turns, one thread: the network for one photo, and a search of one query and of
64 at once, by exact search (Flat) and by HNSW32, among as many photos as the gallery that ships has, with vectors drawn at random. Bytes are
those of the bundle, and of one photo of the gallery: its embedding in float16, and again in a Flat index in float32.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.lib import machine
from bench.lib.paths import RESULTS
from embedder_svc.network import bundle
from embedder_svc.network.model import Model
from search_svc.engine.threads import use_one_core

OUT = RESULTS / "head-costs.json"
GALLERY, K, BATCH = 6396, 30, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    use_one_core()
    rows = [about(path) for path in args.bundles]
    steps = [work(path, row["dimension"]) for path, row in zip(args.bundles, rows, strict=True)]
    timed = in_turns(steps, args.rounds)
    rows = [{**row, **times} for row, times in zip(rows, timed, strict=True)]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    args.out.write_text(
        json.dumps({"machine": machine.describe(), "gallery": GALLERY, "bundles": rows}, indent=1) + "\n"
    )


def about(path: Path) -> dict[str, Any]:
    info = bundle.read(path)
    return {
        "bundle": info.name,
        "dimension": info.dimension,
        "bundle MB": round((path / bundle.GRAPH).stat().st_size / 1e6, 1),
        "bytes a photo, float16": 2 * info.dimension,
        "bytes a photo, Flat": 4 * info.dimension,
    }


Step = Callable[[], Any]


def work(path: Path, dimension: int) -> dict[str, Step]:
    """Return what is timed of a bundle, by name."""
    model = Model.open(path, device="cpu", threads=1)
    rng = np.random.default_rng(0)
    side = model.info.input_size
    photo = rng.integers(0, 256, (1, side, side, 3), np.uint8)
    vectors = rng.standard_normal((GALLERY, dimension), np.float32)
    faiss.normalize_L2(vectors)
    flat, hnsw = (faiss.index_factory(dimension, kind, faiss.METRIC_INNER_PRODUCT) for kind in ("Flat", "HNSW32,Flat"))
    flat.add(vectors)
    hnsw.add(vectors)
    return {
        "network ms": lambda: model.embed_in_lane(photo),
        "Flat, one, ms": searching(flat, vectors[:1]),
        "Flat, 64, ms each": searching(flat, vectors[:BATCH]),
        "HNSW32, one, ms": searching(hnsw, vectors[:1]),
    }


def searching(index: Any, queries: NDArray[np.float32]) -> Step:
    return lambda: index.search(queries, K)


def in_turns(steps: Sequence[dict[str, Step]], rounds: int) -> list[dict[str, float]]:
    """Return the median CPU milliseconds of each step; those of a batch are divided by its queries."""
    found: list[dict[str, list[float]]] = [{name: [] for name in each} for each in steps]
    for _ in range(rounds):
        for each, times in zip(steps, found, strict=True):
            for name, step in each.items():
                step()
                started = time.process_time()
                step()
                times[name].append(1e3 * (time.process_time() - started) / (BATCH if "64" in name else 1))
    return [{name: round(median(values), 3) for name, values in times.items()} for times in found]


if __name__ == "__main__":
    main()
