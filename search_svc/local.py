"""The engine in this process: a thread a shard."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search_svc.comparing import rescored
from search_svc.engine import Answered
from search_svc.merge import Hits, merge
from search_svc.shard import Shard, use_one_core
from search_svc.version import IndexVersion, Metric, SearchParams
from svckit import wheels

MOST_CANDIDATES = 65536
"""Of one query, however many neighbours are asked for and however many candidates for each."""


@dataclass(frozen=True)
class LocalEngine:
    """Answers as one index over all shards would. Thread-safe."""

    _shards: tuple[Shard, ...]
    _embeddings: NDArray[np.float16]
    _metric: Metric
    defaults: SearchParams
    """Of a search that does not say otherwise."""
    _workers: tuple[ThreadPoolExecutor, ...]

    @classmethod
    def open(cls, version: IndexVersion) -> Self:
        """Maps the shards into memory.

        Raises ArtifactError, naming the file and the reason, if one is not what was built, and CommandError if faiss is
        not installed as it should be.
        """
        wheels.check_one_of("faiss-cpu", "faiss-gpu")
        files = zip(version.shard_paths, version.manifest.shards, strict=True)
        shards = tuple(Shard.open(path, info, version) for path, info in files)
        workers = tuple(_worker(number) for number in range(len(shards)))
        return cls(shards, version.embeddings, version.manifest.metric, version.manifest.search, workers)

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

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        params: SearchParams | None = None,
        rows: NDArray[np.bool_] | None = None,
        exact: bool = False,
        timeout_s: float | None = None,  # noqa: ARG002 - comes with the next change
        allow_partial: bool = False,  # noqa: ARG002
    ) -> Answered:
        if exact:
            return self._on_all(lambda shard: shard.scan(queries, k, rows), k)
        params = params or self.defaults
        candidates = min(k * (params.rerank or 1), max(k, MOST_CANDIDATES))
        answered = self._on_all(lambda shard: shard.search(queries, candidates, params, rows), candidates)
        if params.rerank is None:
            return answered
        return Answered(merge([rescored(answered.hits, queries, self._embeddings, self._metric)], k), answered.shards)

    def close(self) -> None:
        for worker in self._workers:
            worker.shutdown()

    def _on_all(self, find: Callable[[Shard], Hits], k: int) -> Answered:
        pairs = zip(self._workers, self._shards, strict=True)
        futures = [worker.submit(find, shard) for worker, shard in pairs]
        return Answered(merge([future.result() for future in futures], k), len(futures))


def _worker(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=f"shard-{number}", initializer=use_one_core)
