"""The engine in this process: one thread for each shard, and one for reranking."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.comparing import rescored
from search_svc.engine.engine import MOST_CANDIDATES, Answered
from search_svc.engine.gpu import Gpu
from search_svc.engine.merge import NO_IDS, Hits, merge
from search_svc.engine.shard import Shard
from search_svc.engine.shard_thread import ShardThread
from search_svc.engine.threads import use_one_core
from search_svc.index.version import EMBEDDINGS_FILE, IndexVersion, Metric, SearchParams
from svckit import wheels
from svckit.errors import Reason, ServiceError
from svckit.gate import shutting_down


@dataclass(frozen=True)
class LocalEngine:
    """An `Engine` whose shards are searched by threads of this process. Thread-safe."""

    _shards: tuple[Shard, ...]
    _embeddings: NDArray[np.float16]
    _metric: Metric
    defaults: SearchParams
    """The parameters of a search that names none."""
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
        places = cycle(gpus or (None,))
        files = zip(version.shard_paths, version.manifest.shards, places, strict=False)
        shards = tuple(Shard.open(path, info, version, gpu) for path, info, gpu in files)
        workers = tuple(ShardThread(shard.file, use_one_core) for shard in version.manifest.shards)
        reranker = ShardThread(EMBEDDINGS_FILE, use_one_core)
        return cls(shards, version.embeddings, version.manifest.metric, version.manifest.search, workers, reranker)

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
    def abandoned(self) -> int:
        """How many searches of shards, and rerankings, took too long and still run."""
        return sum(worker.abandoned for worker in self._all_workers)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        params: SearchParams | None = None,
        rows: NDArray[np.bool_] | None = None,
        without: NDArray[np.int64] = NO_IDS,
        exact: bool = False,
        timeout_s: float | None = None,
        allow_partial: bool = False,
    ) -> Answered:
        ask = partial(self._on_all, timeout_s=timeout_s, allow_partial=allow_partial)
        if exact:
            return ask(lambda shard: shard.scan(queries, k, rows, without), k)
        params = params or self.defaults
        candidates = min(k * (params.rerank or 1), max(k, MOST_CANDIDATES))
        answered = ask(lambda shard: shard.search(queries, candidates, params, rows, without), candidates)
        if params.rerank is None:
            return answered
        return Answered(merge([self._rerank(answered.hits, queries, timeout_s)], k), answered.shards)

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

    def _on_all(
        self, find: Callable[[Shard], Hits], k: int, *, timeout_s: float | None, allow_partial: bool
    ) -> Answered:
        pairs = zip(self._workers, self._shards, strict=True)
        futures = [worker.submit(partial(find, shard)) for worker, shard in pairs]
        late = _abandon_late(self._workers, futures, timeout_s)
        hits = [future.result() for future in futures if not future.cancelled()]
        if late and any(worker.closed for worker in self._workers):
            raise shutting_down()
        if late and not (hits and allow_partial):
            raise _timed_out(
                late, "allow_partial takes the answers of the other shards" if hits else "no shard has answered"
            )
        return Answered(merge(hits, k), len(hits))

    def _rerank(self, hits: Hits, queries: NDArray[np.float32], timeout_s: float | None) -> Hits:
        """Return the hits with exact scores. This has `timeout_s` anew: the shards may have used up theirs."""
        future = self._reranker.submit(partial(rescored, hits, queries, self._embeddings, self._metric))
        late = _abandon_late([self._reranker], [future], timeout_s)
        if late and self._reranker.closed:
            raise shutting_down()
        if late:
            raise _timed_out(late, "a rerank of fewer candidates reads less of it")
        return future.result()


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


def _timed_out(files: Sequence[str], remedy: str) -> ServiceError:
    text = f"not answered in time by {', '.join(files)}; {remedy}"
    return ServiceError(Reason.SHARD_TIMEOUT, text, metadata={"shards": ",".join(files)})
