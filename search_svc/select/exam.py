"""Measures how well an index finds photos of known labels, and how long its searches take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.comparing import rescored
from search_svc.engine.engine import Engine
from search_svc.engine.merge import Hits
from search_svc.evaluation.accuracy import TOP
from search_svc.index.version import Metric, SearchParams
from search_svc.select.points import Timing

K = 10
"""Neighbours that each query asks for."""
ROUNDS = 5
BATCH = 64
_SINGLES = 100
"""Queries that a round asks one at a time."""
_BATCHES = 4
"""Batches that a round asks."""
_ROUND_S = 2.0
"""Seconds after which a round begins no further search, of single queries or of batches."""


@dataclass(frozen=True)
class Quality:
    """How well an index finds photos; the fields are those of `Point`."""

    top_1: float
    top_5: float
    recall_1: float
    recall_10: float
    right: str


@dataclass(frozen=True)
class Exam:
    """Queries of known labels, with the scores that exact search finds for them."""

    queries: NDArray[np.float32]
    """(Q, dimension) The embeddings of the dev photos."""
    truth: NDArray[np.int32]
    """(Q,) The label of each query, as a number."""
    label_of: NDArray[np.int32]
    """(N,) The label of each photo of the gallery."""
    gallery: NDArray[np.float16]
    """(N, dimension) The embeddings of the gallery."""
    metric: Metric
    """The metric by which exact search ranks."""
    first: NDArray[np.float32]
    """(Q,) The score of the nearest photo."""
    tenth: NDArray[np.float32]
    """(Q,) The score of the tenth nearest photo, or of the last if there are fewer."""

    @classmethod
    def prepare(
        cls,
        engine: Engine,
        *,
        queries: NDArray[np.float32],
        truth: NDArray[np.int32],
        label_of: NDArray[np.int32],
        gallery: NDArray[np.float16],
        metric: Metric,
    ) -> Self:
        """Let an engine of this metric search exactly, to learn what an index should find."""
        parts = [engine.search(batch, min(K, len(gallery)), exact=True).hits.scores for batch in batches(queries)]
        scores = np.concatenate(parts)
        return cls(queries, truth, label_of, gallery, metric, scores[:, 0], scores[:, -1])

    def quality(self, engine: Engine, params: SearchParams) -> Quality:
        """Ask the engine all queries, 64 at a time."""
        ids = np.concatenate([engine.search(batch, K, params=params).hits.ids for batch in batches(self.queries)])
        right = (self.label_of[ids] == self.truth[:, None]) & (ids >= 0)
        nearest = self._scores(ids[:, :1])[:, 0]
        found = (self._scores(ids) >= self.tenth[:, None]).sum(axis=1)
        return Quality(
            top_1=float(right[:, 0].mean()),
            top_5=float(right[:, :TOP].any(axis=1).mean()),
            recall_1=float((nearest >= self.first).mean()),
            recall_10=float(found.mean()) / min(K, len(self.gallery)),
            right="".join("01"[int(each)] for each in right[:, 0]),
        )

    def _scores(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the exact scores of the hits. Copies of a photo tie to the bit, so any of them is as good."""
        parts = [
            rescored(Hits(np.zeros(some.shape, np.float32), some), queries, self.gallery, self.metric).scores
            for some, queries in zip(batches(ids), batches(self.queries), strict=True)
        ]
        return np.concatenate(parts)


def batches(rows: NDArray[Any]) -> list[NDArray[Any]]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def timings(
    asked: Sequence[tuple[Engine, SearchParams]], queries: NDArray[np.float32], rounds: int = ROUNDS
) -> list[Timing]:
    """Measure how long searches take with each of the engines and parameters.

    Each of several short rounds asks all of them in turn, so that whatever slows the machine for a while slows all of them.
    The median over the rounds is taken, also of each round's percentiles.
    """
    found = [[_round(engine, params, queries, number) for engine, params in asked] for number in range(rounds)]
    return [Timing(*np.median(each, axis=0).tolist()) for each in zip(*found, strict=True)]


def _round(
    engine: Engine, params: SearchParams, queries: NDArray[np.float32], number: int
) -> tuple[float, float, float, float]:
    """Return the fields of a Timing, measured in one round."""
    singles = [
        queries[place : place + 1] for place in np.arange(number * _SINGLES, (number + 1) * _SINGLES) % len(queries)
    ]
    together = [np.take(queries, np.arange(BATCH) + BATCH * batch, axis=0, mode="wrap") for batch in range(_BATCHES)]
    alone, many = _durations(engine, params, singles), _durations(engine, params, together)
    p50, p99 = np.percentile(alone, (50, 99))
    return float(1 / np.mean(alone)), float(BATCH / np.median(many)), float(1000 * p50), float(1000 * p99)


def _durations(engine: Engine, params: SearchParams, asked: Sequence[NDArray[np.float32]]) -> list[float]:
    """Return the seconds that each search took."""
    found: list[float] = []
    end = time.perf_counter() + _ROUND_S
    for queries in asked:
        started = time.perf_counter()
        engine.search(queries, K, params=params)
        found.append(time.perf_counter() - started)
        if time.perf_counter() > end:
            break
    return found
