"""The largest gallery that fits here, on a cluster of two nodes: `python -m bench.search.large_cluster DATA --photos 3000000`.

Photos that nobody took, with the structure of those in models/stanford-cars, cut to 512 floats (bench/lib/synthetic.py), are built into an
index of two shards by `vmmr-search build --ray`, and searched by replicas on two nodes of this machine, one query at a time and in batches of 64. Recall is that of
their own nearest photos, by comparing with all. DATA is made if it is not there, and stays.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.lib import machine
from bench.lib.memory import rss
from bench.lib.paths import RESULTS, ROOT
from bench.lib.synthetic import Real, make
from bench.search import index as indexes
from demo.cluster import processes
from demo.ray_nodes import ray_nodes
from search_svc.engine.cluster.connection import Connection
from search_svc.engine.cluster.ray_engine import RayEngine
from search_svc.index.version import IndexVersion, SearchParams

DIMENSION, NPROBE = 512, (16, 64, 128)
FLAGS = {"factory": "IVF2048,SQ8", "shards": "2", "nprobe": str(NPROBE[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--photos", type=int, default=3_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "large-cluster.json", metavar="JSON")
    args = parser.parse_args()
    if not args.data.exists():
        make(cut(Real.read(ROOT / "models/stanford-cars")), args.data, args.photos, 2000, seed=0)
    data = indexes.Data(args.data)
    if len(data.gallery) != args.photos:
        parser.error(f"{args.data} has {len(data.gallery)} photos, not {args.photos}: name another folder")
    with ray_nodes(2) as cluster:
        told = {
            "machine": machine.describe(("numpy", "faiss-cpu", "ray")),
            "gallery": f"{len(data.gallery)} photos of {DIMENSION} floats, on two nodes",
            "index": FLAGS,
            "build_s": build(args.data, cluster.address),
            **searched(data, cluster),
        }
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


def cut(real: Real) -> Real:
    """Return the photos by the directions in which they differ most."""
    centred = real.vectors - real.vectors.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    shorter = real.vectors @ directions[:, -DIMENSION:]
    return Real(shorter / np.linalg.norm(shorter, axis=1, keepdims=True), real.classes, real.model)


def build(data: Path, address: str) -> float:
    begun = time.perf_counter()
    flags = [f"--{name}={value}" for name, value in FLAGS.items()]
    command = ["build", str(data / "embeddings"), "--out", str(data / "index"), "--ray", address, *flags]
    subprocess.run([sys.executable, "-m", "search_svc", *command], check=True)
    return round(time.perf_counter() - begun, 1)


def searched(data: indexes.Data, cluster: Any) -> dict[str, Any]:
    version = IndexVersion.open(data.path / "index", verify=False)
    with ExitStack() as stack:
        connection = Connection(cluster.address, replicas=1)
        stack.callback(connection.close)
        begun = time.perf_counter()
        engine = RayEngine.open(version, connection, storage=str(data.path / "index"), cache=str(data.path / "cache"))
        opened = time.perf_counter() - begun
        stack.callback(engine.close)
        points = [point(engine, data, nprobe) for nprobe in NPROBE]
        nodes = [cluster.head_node, *cluster.worker_nodes]
        return {"opening_s": round(opened, 1), "points": points, "nodes": [memory(node) for node in nodes]}


def point(engine: RayEngine, data: indexes.Data, nprobe: int) -> dict[str, Any]:
    params, queries = SearchParams(nprobe=nprobe), data.queries
    engine.search(queries[:64], indexes.K, params=params)
    asked = [alone(engine, queries[row : row + 1], params) for row in range(len(queries))]
    times = [took for _, took in asked]
    begun = time.perf_counter()
    for start in range(0, len(queries), 64):
        engine.search(queries[start : start + 64], indexes.K, params=params)
    right = [len(np.intersect1d(ids, true)) / indexes.K for (ids, _), true in zip(asked, data.truth(), strict=True)]
    return {
        "nprobe": nprobe,
        "recall@10": round(float(np.mean(right)), 4),
        "p50_ms": round(float(np.median(times)), 2),
        "p99_ms": round(float(np.quantile(times, 0.99)), 2),
        "batches of 64, queries/s": round(len(queries) / (time.perf_counter() - begun), 1),
    }


def alone(engine: RayEngine, query: NDArray[np.float32], params: SearchParams) -> tuple[NDArray[np.int64], float]:
    """Return the nearest photos of one query, and the milliseconds that it took."""
    begun = time.perf_counter()
    hits = engine.search(query, indexes.K, params=params).hits
    return hits.ids[0], 1e3 * (time.perf_counter() - begun)


def memory(node: Any) -> dict[str, int]:
    """Return the replicas of a node, and their memory: what they alone hold, and pages of files."""
    sizes = [rss(pid) for pid in processes(node.node_id).values()]
    return {
        "replicas": len(sizes),
        "own_mib": sum(own for own, _ in sizes) >> 20,
        "files_mib": sum(files for _, files in sizes) >> 20,
    }


if __name__ == "__main__":
    main()
