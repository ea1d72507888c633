"""Measure what an embedding's dimension costs: `python -m bench.quality.head_costs BUNDLE BUNDLE ...`, bundles that differ in their heads.

CPU milliseconds, medians of rounds in which the bundles take turns, one thread: the network for one photo, and a search of one query among as
many photos as the gallery that ships has, by several kinds of index; vectors are drawn at random. Bytes are those of the bundle, and of
one photo of the gallery: its embedding in float16, and again in a Flat index in float32. Run it with OMP_NUM_THREADS=1: threads that wait
for each other would count.
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
GALLERY, K = 6396, 30
KINDS = ("Flat", "SQfp16", "SQ8", "IVF80,Flat", "HNSW32,Flat")
NPROBE = 8


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


def tables() -> None:
    """Print what is stored, as docs/export.md has it."""
    for row in json.loads(OUT.read_text())["bundles"]:
        head = "whitened" if "whitened" in row["bundle"] else "without a head (learned projection)"
        stored = f"{row['bytes a photo, float16'] >> 10} KB, {row['bytes a photo, Flat'] >> 10} KB"
        times = (f"{row[f'{kind} ms']:.2f}" for kind in ("Flat", "SQfp16", "IVF80,Flat", "HNSW32,Flat"))
        cells = [f"{head}, {row['dimension']}", f"{row['bundle MB']} MB", f"{row['network ms']:.1f}", stored, *times]
        print(f"| {' | '.join(cells)} |")


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
    return {"network ms": lambda: model.embed_in_lane(photo)} | {
        f"{kind} ms": searching(index(kind, vectors), vectors[:1]) for kind in KINDS
    }


def index(kind: str, vectors: NDArray[np.float32]) -> Any:
    made = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    made.train(vectors)
    made.add(vectors)
    if kind.startswith("IVF"):
        made.nprobe = NPROBE
    return made


def searching(index: Any, queries: NDArray[np.float32]) -> Step:
    return lambda: index.search(queries, K)


def in_turns(steps: Sequence[dict[str, Step]], rounds: int) -> list[dict[str, float]]:
    """Return the median CPU milliseconds of each step."""
    found: list[dict[str, list[float]]] = [{name: [] for name in each} for each in steps]
    for _ in range(rounds):
        for each, times in zip(steps, found, strict=True):
            for name, step in each.items():
                step()
                started = time.process_time()
                step()
                times[name].append(1e3 * (time.process_time() - started))
    return [{name: round(median(values), 3) for name, values in times.items()} for times in found]


if __name__ == "__main__":
    main()
