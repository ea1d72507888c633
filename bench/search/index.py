"""Kinds of index over growing galleries: `python -m bench.search.index build|measure|report ...`.

    python -m bench.search.index build DATA ...        the indexes of galleries that bench/lib/synthetic.py made, in DATA/indexes
    python -m bench.search.index measure DATA ...      what they find and how fast, beside raw faiss; wants an idle machine
    python -m bench.search.index report                prints the tables, and draws docs/scaling.svg

`build` and `measure` do what is not done yet. Each index is built, and measured, in a process of its own, by the code that
serves it, with one shard and so one thread; beside it stands a flat index that faiss itself searches with one thread.
Results are in bench/results/index-DIMENSION-PHOTOS.json.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from search_svc.building.shard_files import write_shards
from search_svc.building.spec import IndexSpec
from search_svc.engine.local import LocalEngine
from search_svc.index.version import IndexVersion, SearchParams, ShardInfo, VersionManifest

PLOT = ROOT / "docs/scaling.svg"
K = 10
QUERIES, SINGLES, FLAT_SINGLES, BATCH = 512, 256, 48, 64
ENOUGH, MOST = 0.95, 0.99
"""The recall@10 that indexes are compared at."""
LEAST = (0.9, ENOUGH, MOST)


@dataclass(frozen=True)
class Kind:
    factory: str
    params: tuple[SearchParams, ...]

    @property
    def folder(self) -> str:
        return self.factory.replace(",", "-")


def kinds(photos: int, dimension: int) -> list[Kind]:
    lists = 2 ** round(np.log2(2 * photos**0.5))
    probes = [count for count in (4, 16, 32, 64, 128, 256) if 2 * count <= lists]
    plain = [SearchParams(nprobe=count) for count in probes]
    again = [SearchParams(nprobe=count, rerank=4) for count in probes]
    more = [SearchParams(nprobe=count, rerank=10) for count in probes]
    small = 128 if dimension <= 512 else 256
    widths = (16, 64, 128, 192, 256, 384, 512)
    walks = [SearchParams(ef_search=width, rerank=again) for again in (None, 2) for width in widths]
    return [
        Kind("Flat", (SearchParams(),)),
        Kind(f"IVF{lists},SQ8", (*plain, *again)),
        Kind(f"IVF{lists}_HNSW32,SQ8", tuple(plain)),
        Kind(f"PCA{small},IVF{lists},SQ8", (*plain, *again)),
        Kind(f"PCA{small},SQ8", (SearchParams(), SearchParams(rerank=4))),
        Kind(f"IVF{lists},RaBitQ", (*plain[-1:], *more)),
        Kind("HNSW32,SQ8", tuple(walks)),
    ]


@dataclass(frozen=True)
class Data:
    path: Path

    @property
    def gallery(self) -> NDArray[np.float16]:
        return cast("NDArray[np.float16]", np.load(self.path / "embeddings/embeddings.npy", mmap_mode="r"))

    @property
    def queries(self) -> NDArray[np.float32]:
        with np.load(self.path / "queries.npz") as file:
            return cast("NDArray[np.float32]", file["vectors"][:QUERIES])

    @property
    def results(self) -> Path:
        photos, dimension = self.gallery.shape
        return RESULTS / f"index-{dimension}-{photos}.json"

    def indexes(self) -> Iterator[tuple[Kind, Path]]:
        for kind in kinds(*self.gallery.shape):
            yield kind, self.path / "indexes" / kind.folder

    def truth(self) -> NDArray[np.int64]:
        """Return the nearest photos (QUERIES, K), found by comparing with all."""
        path = self.path / "truth.npy"
        if not path.exists():
            np.save(path, exact(self.gallery, self.queries, K))
        return cast("NDArray[np.int64]", np.load(path))


def exact(gallery: NDArray[np.float16], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Search exactly, a chunk of the gallery at a time, so that it takes little memory."""
    scores = np.empty((len(queries), 0), np.float32)
    ids = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(gallery), 16384):
        found = queries @ gallery[start : start + 16384].astype(np.float32).T
        scores = np.concatenate([scores, found], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(start + np.arange(found.shape[1]), found.shape)], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
    return ids


def build(data: Data) -> None:
    """Build each index that is not there, in a process of its own, so that its peak of memory is its own."""
    data.truth()
    for kind, path in data.indexes():
        if not (path / "built.json").exists():
            subprocess.run([sys.executable, __file__, "build-one", data.path, kind.factory], check=True)


def build_one(data: Data, factory: str) -> None:
    path = next(path for kind, path in data.indexes() if kind.factory == factory)
    path.mkdir(parents=True, exist_ok=True)
    started, cpu = time.perf_counter(), time.process_time()
    shards = write_shards(path, data.gallery, IndexSpec(factory))
    built = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_own_mib": _peak_own() >> 20,
        "shards": [vars(shard) for shard in shards],
    }
    (path / "built.json").write_text(json.dumps(built))
    print(f"{data.path.name} {factory}: {built['cpu_seconds']:.0f} CPU s", flush=True)


def _peak_own() -> int:
    """Return the peak of resident memory less the mapped files now: a little more than the peak of its own memory."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - status()["RssFile"]


def measure(data: Data) -> None:
    results = json.loads(data.results.read_text()) if data.results.exists() else {}
    names = ["faiss", *(kind.factory for kind, path in data.indexes() if (path / "built.json").exists())]
    for name in names:
        if name in results:
            continue
        command = [sys.executable, __file__, "measure-one", str(data.path), name]
        results[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        RESULTS.mkdir(exist_ok=True)
        data.results.write_text(json.dumps(results, indent=1) + "\n")


def measure_one(data: Data, name: str) -> None:
    if name == "faiss":
        print(json.dumps(_raw(data)))
        return
    kind, path = next(pair for pair in data.indexes() if pair[0].factory == name)
    built = json.loads((path / "built.json").read_text())
    before = status()
    started = time.perf_counter()
    with LocalEngine.open(version(data, path, built)) as engine:
        opening = {"open_seconds": time.perf_counter() - started, "before": before, "opened": status()}
        points = [_point(data, engine, params) for params in kind.params]
    size = sum((path / shard["file"]).stat().st_size for shard in built["shards"])
    print(json.dumps({**built, **opening, "bytes": size, "points": points, "after": status()}))


def version(data: Data, path: Path, built: dict[str, Any]) -> IndexVersion:
    shards = tuple(ShardInfo(**shard) for shard in built["shards"])
    items, dimension = data.gallery.shape
    manifest = VersionManifest(
        version="000001",
        model="",
        model_name="",
        dimension=dimension,
        items=items,
        labels=0,
        factory="",
        metric="ip",
        shards=shards,
        search=SearchParams(),
        k=K,
        temperature=1,
        seed=0,
        train_sample=0,
        created=datetime.now(UTC),
    )
    return IndexVersion(path, manifest, data.gallery, cast("Any", None))  # an engine asks for no items


def _raw(data: Data) -> dict[str, Any]:
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(data.gallery.shape[1])
    for start in range(0, len(data.gallery), 65536):
        index.add(data.gallery[start : start + 65536].astype(np.float32))
    speed = _speed(data, lambda queries: index.search(queries, K)[1], FLAT_SINGLES)
    return {"machine": machine.describe(), **speed}


def _point(data: Data, engine: LocalEngine, params: SearchParams) -> dict[str, Any]:
    singles = SINGLES if any(vars(params).values()) else FLAT_SINGLES
    return {**vars(params), **_speed(data, lambda queries: engine.search(queries, K, params=params).hits.ids, singles)}


def _speed(data: Data, search: Callable[[NDArray[np.float32]], NDArray[np.int64]], singles: int) -> dict[str, Any]:
    queries, truth = data.queries, data.truth()
    count = QUERIES if singles == SINGLES else BATCH
    search(queries[:1])
    found, batch = [], []
    for start in range(0, count, BATCH):
        ids, seconds = _timed(lambda start=start: search(queries[start : start + BATCH]))
        found.append(ids)
        batch.append(seconds)
    alone = [_timed(lambda row=row: search(queries[row : row + 1]))[1] for row in range(singles)]
    ids = np.concatenate(found)
    return {
        "recall@1": recall(ids[:, :1], truth[:count, :1]),
        "recall@10": recall(ids, truth[:count]),
        "p50_ms": 1e3 * float(np.median(alone)),
        "p99_ms": 1e3 * float(np.quantile(alone, 0.99)),
        "qps_1": len(alone) / sum(alone),
        "qps_64": BATCH / float(np.median(batch)),
    }


def _timed(run: Callable[[], NDArray[np.int64]]) -> tuple[NDArray[np.int64], float]:
    started = time.perf_counter()
    result = run()
    return result, time.perf_counter() - started


def recall(found: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    """Return the share of the truly nearest photos that were found."""
    return float(np.mean([len(np.intersect1d(*pair)) for pair in zip(found, true, strict=True)])) / true.shape[1]


def status() -> dict[str, int]:
    """Return the bytes of this process: RssAnon is its own memory, RssFile the pages of mapped files that it has read."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) << 10 for name in ("RssAnon", "RssFile")}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    for name in ("build", "measure"):
        commands.add_parser(name).add_argument("data", type=Path, nargs="+", metavar="DATA")
        one = commands.add_parser(f"{name}-one")
        one.add_argument("data", type=Path, metavar="DATA")
        one.add_argument("factory")
    commands.add_parser("report").add_argument("--all", action="store_true", help="every point")
    args = parser.parse_args(argv)
    if args.command == "report":
        report(every=args.all)
    elif args.command.endswith("-one"):
        {"build-one": build_one, "measure-one": measure_one}[args.command](Data(args.data), args.factory)
    else:
        for path in args.data:
            {"build": build, "measure": measure}[args.command](Data(path))


def report(*, every: bool = False) -> None:
    """Write the tables, and draw how the time of a query grows."""
    tables(every=every)
    _draw(_results())


def _results() -> dict[tuple[int, ...], Any]:
    return {
        tuple(map(int, path.stem.split("-")[1:])): json.loads(path.read_text()) for path in RESULTS.glob("index-*.json")
    }


def tables(*, every: bool = False) -> None:
    """Print tables in Markdown of all results there are, and of how they grow."""
    results = _results()
    for (dimension, photos), kinds in sorted(results.items()):
        print(f"\n{photos:,} photos, {dimension}-d\n")
        _print_table(
            ["index", "bytes a photo", "of Flat", "build, CPU s", *(f"p50 at recall@10 >= {least}" for least in LEAST)],
            _cheapest(dimension, photos, kinds),
        )
        if every:
            print()
            titles = ["index", "search", "recall@1", "@10", "p50 ms", "p99", "q/s", "64 at once", "times faiss", "64"]
            _print_table(titles, _points(kinds))
    print("\n| dimension | recall@10 | index | grows with photos to the power of | p50 |\n|---|---|---|---|---|")
    for dimension in sorted({dimension for dimension, _ in results}):
        for least in (ENOUGH, MOST):
            for name, curve in curves(results, dimension, least).items():
                if len(curve) > 2:
                    told = ", ".join(f"{photos:,}: {ms:.3g} ms" for photos, ms in curve)
                    print(f"| {dimension} | {least} | {name} | {exponent(curve):.2f} | {told} |")


def _print_table(titles: list[str], rows: Iterator[list[str]]) -> None:
    print(f"| {' | '.join(titles)} |\n{len(titles) * '|---'}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def _cheapest(dimension: int, photos: int, kinds: dict[str, Any]) -> Iterator[list[str]]:
    """Return a row for each kind: its quickest search that finds enough, and how many times faster than faiss' flat index it is."""
    exact = kinds["faiss"]["p50_ms"]
    yield ["faiss IndexFlatIP", f"{4 * dimension}", "100 %", "", *len(LEAST) * [f"{exact:.3g} ms"]]
    for name, kind in kinds.items():
        if name == "faiss":
            continue
        cells = []
        for least in LEAST:
            enough = [point for point in kind["points"] if point["recall@10"] >= least]
            best = min(enough, key=lambda point: point["p50_ms"], default=None)
            cells.append(
                f"{best['p50_ms']:.2f} ms, {exact / best['p50_ms']:.1f}x{_named(best)}" if best else "not reached"
            )
        size = kind["bytes"] / photos
        yield [name, f"{size:.0f}", f"{size / 4 / dimension:.0%}", f"{kind['cpu_seconds']:.0f}", *cells]


def _points(kinds: dict[str, Any]) -> Iterator[list[str]]:
    raw = kinds["faiss"]
    for name, kind in kinds.items():
        for point in [kind] if name == "faiss" else kind["points"]:
            found = [f"{point[key]:.3f}" for key in ("recall@1", "recall@10")]
            speed = [f"{point[key]:.3g}" for key in ("p50_ms", "p99_ms")]
            speed += [f"{point[key]:.0f}" for key in ("qps_1", "qps_64")]
            times = [f"{raw['p50_ms'] / point['p50_ms']:.3g}", f"{point['qps_64'] / raw['qps_64']:.3g}"]
            yield [name, _named(point).strip(" ()"), *found, *speed, *times]


def _named(point: dict[str, Any]) -> str:
    told = ", ".join(f"{name} {point[name]}" for name in ("nprobe", "ef_search", "rerank") if point.get(name))
    return f" ({told})" if told else ""


Curve = list[tuple[int, float]]
"""Photos, and the milliseconds of one query."""


def curves(results: dict[tuple[int, ...], Any], dimension: int, least: float) -> dict[str, Curve]:
    """Return, for each kind of index, its quickest search that finds enough at each size, where one does."""
    found: dict[str, Curve] = {}
    for (its_dimension, photos), kinds in sorted(results.items()):
        if its_dimension != dimension:
            continue
        for name, kind in kinds.items():
            points = [kind] if name == "faiss" else kind["points"]
            enough = [point for point in points if point["recall@10"] >= least]
            if enough:
                label = "faiss IndexFlatIP" if name == "faiss" else re.sub(r"IVF\d+", "IVF", name)
                found.setdefault(label, []).append((photos, min(point["p50_ms"] for point in enough)))
    return found


def exponent(curve: Curve) -> float:
    """Return the slope of log time over log photos."""
    photos, times = np.log(np.array(curve)).T
    return float(np.polyfit(photos, times, 1)[0])


def _draw(results: dict[tuple[int, ...], Any]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - the rest does without

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "vmmr"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    dimensions = sorted({dimension for dimension, _ in results})
    figure, axes = plt.subplots(1, len(dimensions), figsize=(6 * len(dimensions), 4.5), squeeze=False, sharey=True)
    for axis, dimension in zip(axes[0], dimensions, strict=True):
        for name, curve in curves(results, dimension, ENOUGH).items():
            axis.loglog(*zip(*curve, strict=True), "o-", label=name)
        axis.set(
            title=f"{dimension}-d, one query, one thread, recall@10 >= {ENOUGH}", xlabel="photos", ylabel="p50, ms"
        )
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
