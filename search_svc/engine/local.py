"""The engine in this process: one thread for each shard, and one for reranking."""

import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.asking import Asked, MergingEngine, Question
from search_svc.engine.comparing import rescored
from search_svc.engine.gpu import Gpu
from search_svc.engine.merge import Hits
from search_svc.engine.shard import Shard
from search_svc.engine.shard_thread import ShardThread
from search_svc.engine.threads import use_one_core
from search_svc.index.version import EMBEDDINGS_FILE, IndexVersion, Metric, SearchParams
from svckit import stages, wheels


@dataclass(frozen=True)
class LocalEngine(MergingEngine):
    """An `Engine` whose shards are searched by threads of this process. Thread-safe."""

    _shards: tuple[Shard, ...]
    _embeddings: NDArray[np.float16]
    _metric: Metric
    defaults: SearchParams
    _workers: tuple[ShardThread, ...]
    _reranker: ShardThread
    """Reads embeddings, for reranking, in a thread of its own: if the disk hangs, this thread can be abandoned, too."""

    @classmethod
    def open(cls, version: IndexVersion, gpus: Sequence[Gpu] = ()) -> Self:
        """Map the shards of a version into memory, and copy them to the GPUs in turn, if any are given.

        Raises ArtifactError, naming the file and the reason, if a shard is not as it was built; CommandError unless
        exactly one of faiss-cpu and faiss-gpu is installed; DeviceError if a GPU can't hold a shard.
        """
        wheels.check_one_of("faiss-cpu", "faiss-gpu")
        manifest = version.manifest
        places = cycle(gpus or (None,))
        files = zip(version.shard_paths, manifest.shards, places, strict=False)
        shards = tuple(Shard.open(path, info, manifest, version.embeddings, gpu) for path, info, gpu in files)
        workers = tuple(ShardThread(shard.file, use_one_core) for shard in manifest.shards)
        reranker = ShardThread(EMBEDDINGS_FILE, use_one_core)
        return cls(shards, version.embeddings, manifest.metric, manifest.search, workers, reranker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def shards(self) -> int:
        return len(self._shards)

    @property
    def tunable(self) -> frozenset[str]:
        return self._shards[0].tunable

    @property
    def batching(self) -> bool:
        return self._shards[0].adapter.batching

    @property
    def abandoned(self) -> int:
        """How many searches of shards, and rerankings, took too long and still run."""
        return sum(worker.abandoned for worker in self._all_workers)

    @property
    def closed(self) -> bool:
        return any(worker.closed for worker in self._all_workers)

    def interrupt(self) -> None:
        """Fail the searches that callers wait for, and any later one, with SHUTTING_DOWN."""
        for worker in self._all_workers:
            worker.interrupt()

    def close(self) -> None:
        """Wait for the searches that still run, except those that were abandoned, and end the threads."""
        for worker in self._all_workers:
            worker.close()

    @property
    def _all_workers(self) -> tuple[ShardThread, ...]:
        return (*self._workers, self._reranker)

    def _ask(self, question: Question, timeout_s: float | None) -> Asked:
        pairs = zip(self._workers, self._shards, strict=True)
        futures = [
            worker.submit(stages.timed("shard", partial(_answer, shard, question), **{"vmmr.shard": worker.name}))
            for worker, shard in pairs
        ]
        return _wait(self._workers, futures, timeout_s)

    def _rescore(self, candidates: Hits, queries: NDArray[np.float32], timeout_s: float | None) -> Asked:
        rescore = partial(rescored, candidates, queries, self._embeddings, self._metric)
        future = self._reranker.submit(stages.timed("rerank", rescore))
        return _wait([self._reranker], [future], timeout_s)


def _answer(shard: Shard, question: Question) -> Hits:
    return shard.answer(question.of(shard.rows))


def _wait(workers: Sequence[ShardThread], futures: Sequence[Future[Hits]], timeout_s: float | None) -> Asked:
    late = _abandon_late(workers, futures, timeout_s)
    return Asked([future.result() for future in futures if not future.cancelled()], late)


def _abandon_late(
    workers: Sequence[ShardThread], futures: Sequence[Future[Hits]], timeout_s: float | None
) -> list[str]:
    """Wait for the futures. Abandon the workers that are not done in time, and return their names."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    pairs = zip(workers, futures, strict=True)
    return [worker.name for worker, future in pairs if not _ended(future, end) and worker.abandon(future)]


def _ended(future: Future[Hits], end: float | None) -> bool:
    """Wait for the future until the monotonic time `end`, and return whether it is done."""
    try:
        future.exception(None if end is None else max(0.0, end - time.monotonic()))
    except (TimeoutError, CancelledError):
        return False
    return True
