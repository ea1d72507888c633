"""What a search costs beside faiss itself: `python -m bench.search.reply`.

64 queries, k = 10, over 20,000 vectors of 2048 dimensions. Each stage is CPU time of one thread beside that of one call
to faiss on the same index in the same run: reading the call, the engine (over-fetching, ties, ids, merge), the vote,
and the reply with its serialisation.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from vmmr import wire
from vmmr.search.v1 import search_pb2

from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.engine.local import LocalEngine
from search_svc.index.version import IndexVersion
from search_svc.live.view import Opened, View
from search_svc.serving.queries import Limits, QueryReader
from search_svc.serving.replies import Replies
from search_svc.serving.searcher import Searcher
from search_svc.voting.answer import Answerer
from search_svc.voting.labels import parse

PHOTOS, DIMENSION, QUERIES, K, LABELS = 20_000, 2048, 64, 10, 500
REPEATS = 15
MODEL = 64 * "0"


def main() -> None:
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((LABELS, DIMENSION), np.float32)
    gallery = centres[np.arange(PHOTOS) % LABELS] + rng.standard_normal((PHOTOS, DIMENSION), np.float32)
    queries = centres[:QUERIES] + rng.standard_normal((QUERIES, DIMENSION), np.float32)
    for spec in (IndexSpec(), IndexSpec("IVF128,SQ8", nprobe=8, train_sample=5000)):
        with tempfile.TemporaryDirectory() as directory:
            measure(build(Path(directory), gallery, spec), queries)


def build(directory: Path, gallery: np.ndarray, spec: IndexSpec) -> IndexVersion:
    names = [f"photos/class-{row % LABELS:04d}/{row:06d}.jpg" for row in range(PHOTOS)]
    labels = [parse(f"make{row % LABELS // 10}_model{row % LABELS}_2011") for row in range(PHOTOS)]
    return build_version(
        directory,
        BuildSource(
            embeddings=gallery / np.linalg.norm(gallery, axis=1, keepdims=True),
            item_ids=names,
            labels=labels,
            uris=names,
            model=MODEL,
            model_name="bench",
            rows=np.arange(len(names)),
        ),
        spec,
    )


def measure(version: IndexVersion, queries: np.ndarray) -> None:
    index = faiss.read_index(str(version.shard_paths[0]))
    if version.manifest.search.nprobe:
        index.nprobe = version.manifest.search.nprobe
    request = search_pb2.ClassifyRequest(
        queries=wire.pack(MODEL, queries / np.linalg.norm(queries, axis=1, keepdims=True)),
        options=search_pb2.SearchOptions(k=K),
    )
    with LocalEngine.open(version) as shards:
        reader = QueryReader(version, shards.tunable, Limits(256, 1000, 2**25, 10_000))
        view = View(Opened(version, shards))
        searcher, replies, answerer = Searcher(lambda: view), Replies(version), Answerer(version)
        read = reader.read(request, view)
        found = [each.neighbours for each in searcher.run(read)]
        cars = [[each] for each in found]
        answers = [answerer.answer(photos) for photos in cars]
        raw = cpu(lambda: index.search(wire.unpack(request.queries), K))
        print(f"\n{version.manifest.factory}: faiss {1e3 * raw:.2f} ms for {QUERIES} queries")
        report("read the call", raw, lambda: reader.read(request, view))
        report("engine", raw, lambda: searcher.run(read))
        report("vote", raw, lambda: [answerer.answer(photos) for photos in cars])
        report("reply to Search", raw, lambda: replies.search(found).SerializeToString())
        report("reply to Classify", raw, lambda: replies.classify(cars, answers).SerializeToString())


def report(stage: str, raw: float, run: Callable[[], object]) -> None:
    seconds = cpu(run)
    print(f"  {stage:18} {1e3 * seconds:8.2f} ms  {seconds / raw:6.3f} of faiss")


def cpu(run: Callable[[], object]) -> float:
    """Return the CPU seconds of all threads: the least of some runs, since other work only ever adds to them."""
    run()
    return min(timed(run) for _ in range(REPEATS))


def timed(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    main()
