"""How long a search waits for Python's lock beside a thread that writes replies: `python -m bench.search.switching`.

64 queries, k = 10, of an IVF shard, again and again, while another thread writes replies half of the time. By Python's switch
interval, in turns: for how long the search's thread neither computed nor waited for a core (/proc/self/task/*/schedstat), so
other work on the machine does not count; and its CPU time.
"""

import random
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
from vmmr.search.v1 import search_pb2

from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.engine.asking import Question
from search_svc.engine.shard import Shard
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import parse

INTERVALS_S = (5e-3, 5e-4, 1e-4)
PHOTOS, DIMENSION, LABELS, QUERIES, K = 50_000, 512, 1000, 64, 10
TURNS, BATCHES = 12, 8
WRITING_S = 3e-3


def main() -> None:
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((PHOTOS + QUERIES, DIMENSION), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as directory:
        version = built(Path(directory), vectors[QUERIES:])
        manifest = version.manifest
        shard = Shard.open(version.shard_paths[0], manifest.shards[0], manifest, version.embeddings)
        question = Question(vectors[:QUERIES], K, manifest.search)
        search = lambda: shard.answer(question)  # noqa: E731
        search()
        figures = defaultdict(list)
        with writing():
            for _ in range(TURNS):
                for interval_s in random.sample(INTERVALS_S, len(INTERVALS_S)):
                    sys.setswitchinterval(interval_s)
                    figures[interval_s] += [timed(search) for _ in range(BATCHES)]
    for interval_s in INTERVALS_S:
        still, cpu = zip(*figures[interval_s], strict=True)
        print(
            f"{1e3 * interval_s:4.1f} ms: a batch stood still for {statistics.mean(still):5.2f} ms, CPU {statistics.median(cpu):.2f} ms"
        )


def built(directory: Path, vectors: np.ndarray) -> IndexVersion:
    names = [f"photos/{row:06d}.jpg" for row in range(PHOTOS)]
    labels = [parse(f"make{row % LABELS // 10}_model{row % LABELS}_2011") for row in range(PHOTOS)]
    spec = IndexSpec("IVF512,SQ8", nprobe=16, train_sample=20_000)
    return build_version(
        directory,
        BuildSource(
            embeddings=vectors,
            item_ids=names,
            labels=labels,
            uris=names,
            model=64 * "0",
            model_name="bench",
            rows=np.arange(len(names)),
        ),
        spec,
    )


@contextmanager
def writing() -> Iterator[None]:
    """Run a thread that writes replies for a while, then sleeps as long."""
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(WRITING_S):
            until = time.perf_counter() + WRITING_S
            while time.perf_counter() < until:
                neighbours = search_pb2.Neighbours()
                for row in range(K):
                    neighbours.neighbours.add(item_id=f"{row}.jpg", score=0.5)

    thread = threading.Thread(target=write)
    thread.start()
    yield
    ended.set()
    thread.join()


def timed(search: Callable[[], object]) -> tuple[float, float]:
    """Return the milliseconds in which this thread neither computed nor waited for a core, and in which it computed."""
    started, (cpu, waited) = time.perf_counter(), scheduled_ms()
    search()
    wall_ms = 1e3 * (time.perf_counter() - started)
    cpu_after, waited_after = scheduled_ms()
    return wall_ms - (cpu_after - cpu) - (waited_after - waited), cpu_after - cpu


def scheduled_ms() -> tuple[float, float]:
    """Return the milliseconds for which this thread has computed, and has waited for a core."""
    cpu, waited, _ = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()
    return int(cpu) / 1e6, int(waited) / 1e6


if __name__ == "__main__":
    main()
