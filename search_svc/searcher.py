"""Searches across callers: queries that waited together are searched together."""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_svc.engine import Engine
from search_svc.labels import Label
from search_svc.merge import Hits
from search_svc.queries import Plan, Query
from search_svc.version import IndexVersion
from svckit.errors import Reason, ServiceError

_SHARDS_SHARE = 0.9
"""Of the time that callers have, where they take a partial answer: the rest is for it to be made and sent."""


@dataclass(frozen=True)
class Found:
    """The neighbours of one query, nearest first."""

    rows: list[int]
    """Of the gallery."""
    labels: list[Label]
    scores: list[float]
    missing: int = 0
    """Shards whose photos were not searched."""


class Searcher:
    """What a Batcher runs: the queries of one batch, each in its own way."""

    def __init__(self, version: IndexVersion, engine: Engine) -> None:
        self._items = version.items
        self._engine = engine

    def run(self, queries: Sequence[Query]) -> list[Found | Exception]:
        """What was found for each query, or why nothing was. Those of other plans are none the worse for it."""
        positions = defaultdict(list)
        for position, query in enumerate(queries):
            positions[query.plan].append(position)
        found: dict[int, Found | Exception] = {}
        for plan, group in positions.items():
            found.update(zip(group, self._outcomes(plan, [queries[position] for position in group]), strict=True))
        return [found[position] for position in range(len(queries))]

    def _outcomes(self, plan: Plan, queries: Sequence[Query]) -> Sequence[Found | Exception]:
        try:
            return self._search(plan, queries)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is these queries' alone)
            return [error] * len(queries)

    def _search(self, plan: Plan, queries: Sequence[Query]) -> list[Found]:
        vectors = np.stack([query.vector for query in queries])
        rows = None if plan.labels is None else np.frombuffer(plan.labels, np.bool_)[self._items.label_of]
        answered = self._engine.search(
            vectors,
            plan.k,
            params=plan.params,
            rows=rows,
            exact=plan.exact,
            timeout_s=_time_s(plan, queries),
            allow_partial=plan.allow_partial,
        )
        return self._found(answered.hits, self._engine.shards - answered.shards)

    def _found(self, hits: Hits, missing: int) -> list[Found]:
        """Of all queries at once, for a batch holds hundreds of neighbours."""
        counts = np.count_nonzero(hits.ids >= 0, axis=1).tolist()
        positions = self._items.label_of[hits.ids].tolist()
        queries = zip(counts, hits.ids.tolist(), positions, hits.scores.tolist(), strict=True)
        labels = self._items.labels
        return [
            Found(rows[:count], [labels[position] for position in of[:count]], scores[:count], missing)
            for count, rows, of, scores in queries
        ]


def _time_s(plan: Plan, queries: Sequence[Query]) -> float | None:
    """Seconds that the shards have: no more than the plan says, and than somebody waits."""
    left_s = max(query.deadline for query in queries) - time.monotonic()
    if left_s <= 0:
        raise ServiceError(Reason.DEADLINE_EXCEEDED, "the deadline passed before the search began")
    if plan.allow_partial:
        left_s *= _SHARDS_SHARE
    limit_s = min(left_s, math.inf if plan.timeout_s is None else plan.timeout_s)
    return None if limit_s == math.inf else limit_s
