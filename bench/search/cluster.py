"""What shards on a Ray cluster cost beside the same shards in this process: `python -m bench.search.cluster`.

The same version, two shards of made-up photos, searched by both engines in turns:

- one query at a time, on two nodes: the time of each, and the difference of their medians, which is the way there and back;
- batches of 64: CPU time of this process and of the replicas, so queries a second of a core;
- batches of 64 on one node, and then on two, where each node is pinned to a core of its own: queries a second.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.lib import machine
from bench.lib.memory import cpu_s, tree
from bench.lib.paths import RESULTS
from demo.cluster import asked_of, processes
from demo.ray_nodes import add_node, ray_nodes
from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.engine.cluster.connection import Connection
from search_svc.engine.cluster.ray_engine import RayEngine
from search_svc.engine.local import LocalEngine
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import parse

SHARDS, K = 2, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--factory", default="SQ8")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS / "cluster.json", metavar="JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vmmr-bench-") as folder:
        version = built(Path(folder) / "index", args.photos, args.dimension, args.factory)
        found = compare(version, Path(folder), args.rounds)
    told = {
        "machine": machine.describe(("numpy", "faiss-cpu", "ray")),
        "gallery": f"{args.photos} photos of {args.dimension} floats, {args.factory}, {SHARDS} shards, k {K}",
        **found,
    }
    args.out.write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))


def built(index: Path, photos: int, dimension: int, factory: str) -> IndexVersion:
    vectors = np.random.default_rng(0).standard_normal((photos, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    source = BuildSource(
        embeddings=vectors.astype(np.float16),
        item_ids=[f"photo {row}" for row in range(photos)],
        labels=[parse(f"make_model {row % 1000}_2000") for row in range(photos)],
        uris=[""] * photos,
        model=64 * "c",
        model_name="made up",
        rows=np.arange(photos),
        embeddings_fingerprint=None,
    )
    return build_version(index, source, IndexSpec(factory, shards=SHARDS, k=K))


def compare(version: IndexVersion, folder: Path, rounds: int) -> dict[str, Any]:
    queries = asked_of(version)
    with ExitStack() as stack:
        cluster = stack.enter_context(ray_nodes(1))
        connection = Connection(cluster.address, replicas=1)
        stack.callback(connection.close)
        local = stack.enter_context(LocalEngine.open(version))

        def opened() -> RayEngine:
            return RayEngine.open(
                version, connection, storage=str(version.path.parents[1]), cache=str(folder / "cache")
            )

        engine = opened()
        pin([cluster.head_node])
        on_one = [rate(engine, queries) for _ in range(rounds)]
        engine.close()
        until_gone()
        add_node(cluster)
        engine = opened()
        stack.callback(engine.close)
        pids = pin([cluster.head_node, *cluster.worker_nodes])
        on_two = [rate(engine, queries) for _ in range(rounds)]
        single = beside(local, engine, queries, rounds)
        batches = [(cpu_ms(local, queries, []), cpu_ms(engine, queries, pids)) for _ in range(rounds)]
    return {
        **single,
        "batches of 64, CPU ms a query, local": [round(one, 3) for one, _ in batches],
        "batches of 64, CPU ms a query, cluster": [round(other, 3) for _, other in batches],
        "batches of 64, queries a second of a core, cluster / local": [round(one / other, 3) for one, other in batches],
        "queries a second, one node": [round(each, 1) for each in on_one],
        "queries a second, two nodes": [round(each, 1) for each in on_two],
        "two nodes / one node": round(float(np.median(on_two) / np.median(on_one)), 3),
    }


def beside(local: LocalEngine, engine: RayEngine, queries: NDArray[np.float32], rounds: int) -> dict[str, Any]:
    """Return how long one query takes. Each is put to both engines, and the answers are compared."""
    here, there = [], []
    for _ in range(rounds):
        ours, theirs = [], []
        for row in range(len(queries)):
            query = queries[row : row + 1]
            one, took = timed(local, query)
            other, took_there = timed(engine, query)
            np.testing.assert_array_equal(one.hits.ids, other.hits.ids)
            np.testing.assert_array_equal(one.hits.scores, other.hits.scores)
            ours.append(took)
            theirs.append(took_there)
        here.append(float(np.median(ours)))
        there.append(float(np.median(theirs)))
    return {
        "one query, p50 ms, local": [round(each, 2) for each in here],
        "one query, p50 ms, cluster": [round(each, 2) for each in there],
        "one query, ms more": [round(other - one, 2) for one, other in zip(here, there, strict=True)],
        "answers": "the same to the bit",
    }


def timed(engine: LocalEngine | RayEngine, queries: NDArray[np.float32]) -> tuple[Any, float]:
    begun = time.perf_counter()
    answered = engine.search(queries, K)
    return answered, 1e3 * (time.perf_counter() - begun)


def rate(engine: RayEngine, queries: NDArray[np.float32]) -> float:
    """Return the queries a second of a batch."""
    return 1e3 * len(queries) / timed(engine, queries)[1]


def cpu_ms(engine: LocalEngine | RayEngine, queries: NDArray[np.float32], replicas: Sequence[int]) -> float:
    """Return the CPU time of a query in a batch, of this process and of the replicas."""
    before = time.process_time() + sum(map(cpu_s, replicas))
    engine.search(queries, K)
    return 1e3 * (time.process_time() + sum(map(cpu_s, replicas)) - before) / len(queries)


def pin(nodes: Sequence[Any]) -> list[int]:
    """Keep each node, with all that runs on it, to a core of its own. Return the processes of the replicas."""
    cores, pids = sorted(os.sched_getaffinity(0)), []
    for node, core in zip(nodes, cores, strict=False):
        here = list(processes(node.node_id).values())
        raylets = [each.process.pid for each in node.all_processes["raylet"]]
        for pid in {*here, *(pid for raylet in raylets for pid in tree(raylet))}:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
        pids += here
    if len(pids) != SHARDS or len(nodes) > len(cores):
        raise RuntimeError(f"there must be a core for each node, and a replica for each shard: {cores}, {pids}")
    return pids


def until_gone() -> None:
    """Wait until no replica is left."""
    end = time.monotonic() + 60
    while processes():
        if time.monotonic() > end:
            raise TimeoutError("replicas that nobody needs have not ended")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
