"""An HNSW index beside exact search, one query at a time, one thread: `python -m bench.search.beside_exact DATA`.

DATA is what bench/lib/synthetic.py made and bench/search/index.py built indexes of. Exact search is faiss.IndexFlatIP over the photos in
float32; the index is searched through the engine that serves. Both take turns, so what slows the machine for a while slows
both. All 2,000 queries of DATA are asked. Memory is that of a process without the flat index, by file (Rss in smaps).
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.lib import machine
from bench.search import index as indexes
from search_svc.engine.local import LocalEngine
from search_svc.index.version import SearchParams

FACTORY, FOLDER = "HNSW32,SQ8", "HNSW32-SQ8"
POINTS = [
    *(SearchParams(ef_search=width) for width in (256, 512)),
    *(SearchParams(ef_search=width, rerank=again) for width in (192, 224, 256, 288, 320) for again in (2, 4)),
]
MEASURED = SearchParams(ef_search=288, rerank=2)
"""What memory is measured with, and the first queries of a process."""
ROUNDS, EXACT = 8, 8
"""Turns, and exact searches in each; the queries of a point are dealt out among the turns."""
FIRST = 100


def main(argv: Sequence[str]) -> None:
    path = Path(argv[-1])
    data = indexes.Data(path)
    with np.load(path / "queries.npz") as file:
        queries = file["vectors"]
    if argv[0] in {"memory", "first"}:
        print(json.dumps({"memory": memory, "first": first}[argv[0]](data, queries)))
        return
    photos, dimension = data.gallery.shape
    told = {
        "machine": machine.describe(),
        "index": FACTORY,
        "photos": photos,
        "dimension": dimension,
        "queries": len(queries),
        "share of float32 Flat": sum(file.stat().st_size for file in (path / "indexes" / FOLDER).glob("shard-*"))
        / (4 * photos * dimension),
        "memory": _alone("memory", path),
        **first_queries(path),
        **beside(data, queries, truth(data, queries)),
    }
    target = indexes.RESULTS / f"beside-exact-{dimension}-{photos}.json"
    target.write_text(json.dumps(told, indent=1) + "\n")
    _print(told)


def truth(data: indexes.Data, queries: NDArray[np.float32]) -> NDArray[np.int64]:
    path = data.path / f"truth-{len(queries)}.npy"
    if not path.exists():
        np.save(path, indexes.exact(data.gallery, queries, indexes.K))
    return np.asarray(np.load(path))


def beside(data: indexes.Data, queries: NDArray[np.float32], true: NDArray[np.int64]) -> dict[str, Any]:
    """Measure how long one query takes, and what it finds."""
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(queries.shape[1])
    for start in range(0, len(data.gallery), 65536):
        flat.add(data.gallery[start : start + 65536].astype(np.float32))
    exact: list[list[float]] = []
    times: dict[SearchParams, list[list[float]]] = defaultdict(list)
    found = {params: np.empty_like(true) for params in POINTS}
    with _opened(data) as engine:
        for params in POINTS:
            engine.search(queries[:1], indexes.K, params=params)
        for turn in range(ROUNDS):
            exact.append([_timed(flat, queries[row : row + 1]) for row in range(turn * EXACT, (turn + 1) * EXACT)])
            for params in POINTS:
                seconds = []
                for row in range(turn, len(queries), ROUNDS):
                    started = time.perf_counter()
                    answered = engine.search(queries[row : row + 1], indexes.K, params=params)
                    seconds.append(time.perf_counter() - started)
                    found[params][row] = answered.hits.ids[0]
                times[params].append(seconds)
    points = [_point(params, found[params], true, times[params], exact) for params in POINTS]
    return {"exact": _speed(exact), "points": points}


def _timed(flat: Any, query: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    flat.search(query, indexes.K)
    return time.perf_counter() - started


def _speed(turns: list[list[float]]) -> dict[str, float]:
    every = 1e3 * np.concatenate(turns)
    return {
        "p50_ms": float(np.median(every)),
        "mean_ms": float(every.mean()),
        "p99_ms": float(np.quantile(every, 0.99)),
    }


def _point(
    params: SearchParams,
    found: NDArray[np.int64],
    true: NDArray[np.int64],
    turns: list[list[float]],
    exact: list[list[float]],
) -> dict[str, Any]:
    hits = np.array([len(np.intersect1d(*pair)) for pair in zip(found, true, strict=True)]) / true.shape[1]
    faster = [float(np.median(slow) / np.median(quick)) for slow, quick in zip(exact, turns, strict=True)]
    every, slow = np.concatenate(turns), np.concatenate(exact)
    return {
        **vars(params),
        "recall@10": float(hits.mean()),
        "recall@10 +-": float(1.96 * hits.std(ddof=1) / len(hits) ** 0.5),
        **_speed(turns),
        "times faster": float(np.median(slow) / np.median(every)),
        "times faster, by means": float(slow.mean() / every.mean()),
        "times faster, of all turns": [min(faster), max(faster)],
    }


def memory(data: indexes.Data, queries: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Return the memory when opened, after all queries without comparing again, and after all with it."""
    stages = [{"stage": "before", **_resident()}]
    with _opened(data) as engine:
        stages.append({"stage": "opened", **_resident()})
        for params in (SearchParams(ef_search=MEASURED.ef_search), MEASURED):
            for row in range(len(queries)):
                engine.search(queries[row : row + 1], indexes.K, params=params)
            stages.append({"stage": f"{len(queries)} queries", **vars(params), **_resident()})
    return stages


def first_queries(path: Path) -> dict[str, Any]:
    """Measure the first queries of a process, by what the kernel holds of the files when it starts."""
    files = [*(path / "indexes" / FOLDER).glob("*.faiss"), path / "embeddings/embeddings.npy"]
    told = {}
    for name, count in (("nothing", 0), ("the index", len(files) - 1), ("everything", len(files))):
        for file in files[count:]:
            _forget(file)
        for file in files[:count]:
            file.read_bytes()
        told[f"first queries, {name} in memory"] = _alone("first", path)
    return told


def first(data: indexes.Data, queries: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Measure queries without comparing again, then the same with it, and how often the disk was waited for."""
    stages = []
    with _opened(data) as engine:
        for params in (SearchParams(ef_search=MEASURED.ef_search), MEASURED):
            seconds, waits = [], resource.getrusage(resource.RUSAGE_SELF).ru_majflt
            for row in range(FIRST):
                started = time.perf_counter()
                engine.search(queries[row : row + 1], indexes.K, params=params)
                seconds.append(time.perf_counter() - started)
            waits = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - waits
            stages.append({**vars(params), **_speed([seconds]), "major faults a query": waits / FIRST})
    return stages


def _forget(file: Path) -> None:
    """Have the kernel drop what it holds of a file that nobody maps."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _alone(name: str, path: Path) -> list[dict[str, Any]]:
    """Run a command of this bench in a process of its own. Return what it measured."""
    command = [sys.executable, __file__, name, str(path)]
    return cast("list[dict[str, Any]]", json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def _opened(data: indexes.Data) -> LocalEngine:
    path = data.path / "indexes" / FOLDER
    return LocalEngine.open(indexes.version(data, path, json.loads((path / "built.json").read_text())))


def _resident() -> dict[str, int]:
    """Return the MiB of this process: its own memory, and the pages of the index and of embeddings.npy that it has read."""
    sizes = {"own": indexes.status()["RssAnon"] >> 10, "index": 0, "embeddings": 0}
    name = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            mapped = words[-1]
            name = "index" if mapped.endswith(".faiss") else "embeddings" if mapped.endswith(".npy") else None
        elif words[0] == "Rss:" and name:
            sizes[name] += int(words[1])
    return {f"{key}_mib": size >> 10 for key, size in sizes.items()}


def tables() -> None:
    """Print what is stored."""
    for path in sorted(indexes.RESULTS.glob("beside-exact-*.json")):
        _print(json.loads(path.read_text()))


def _print(told: dict[str, Any]) -> None:
    print(f"exact {told['exact']['p50_ms']:.1f} ms; the index is {told['share of float32 Flat']:.1%} of float32 Flat")
    for name, stages in told.items():
        if name == "memory" or name.startswith("first"):
            print(name, *stages, sep="\n    ")
    print("\n| search | recall@10 | p50 ms | p99 ms | times faster | in the 8 turns |\n|---|---|---|---|---|---|")
    for point in told["points"]:
        again = f", rerank {point['rerank']}" if point["rerank"] else ""
        least, most = point["times faster, of all turns"]
        print(
            f"| ef_search {point['ef_search']}{again} | {point['recall@10']:.4f} ± {point['recall@10 +-']:.4f} "
            f"| {point['p50_ms']:.2f} | {point['p99_ms']:.2f} | {point['times faster']:.1f} | {least:.1f} to {most:.1f} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
