"""Searches across callers: queries that waited together are searched together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.labels import Label
from search_svc.local import LocalEngine
from search_svc.queries import Plan, Query
from search_svc.version import IndexVersion


@dataclass(frozen=True)
class Found:
    """The neighbours of one query, nearest first."""

    rows: list[int]
    """Of the gallery."""
    labels: list[Label]
    scores: list[float]


class Searcher:
    """What a Batcher runs: the queries of one batch, each in its own way."""

    def __init__(self, version: IndexVersion, shards: LocalEngine) -> None:
        self._items = version.items
        self._shards = shards

    def run(self, queries: Sequence[Query]) -> list[Found]:
        """What was found for each query."""
        positions = defaultdict(list)
        for position, query in enumerate(queries):
            positions[query.plan].append(position)
        found: dict[int, Found] = {}
        for plan, group in positions.items():
            vectors = np.stack([queries[position].vector for position in group])
            found.update(zip(group, self._search(vectors, plan), strict=True))
        return [found[position] for position in range(len(queries))]

    def _search(self, vectors: NDArray[np.float32], plan: Plan) -> list[Found]:
        rows = None if plan.labels is None else np.frombuffer(plan.labels, np.bool_)[self._items.label_of]
        hits = self._shards.search(vectors, plan.k, params=plan.params, rows=rows, exact=plan.exact).hits
        return [self._found(ids[ids >= 0], scores) for ids, scores in zip(hits.ids, hits.scores, strict=True)]

    def _found(self, ids: NDArray[np.int64], scores: NDArray[np.float32]) -> Found:
        labels = [self._items.labels[position] for position in self._items.label_of[ids].tolist()]
        return Found(ids.tolist(), labels, scores[: len(ids)].tolist())
