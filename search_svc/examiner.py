"""An index, asked for photos whose labels are known, as a caller of the service would ask."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_svc.accuracy import LEVELS, TOP, Answer, distinct
from search_svc.labels import Label
from search_svc.shards import ShardSet
from search_svc.version import IndexVersion
from search_svc.vote import vote

_DEPTHS = (64, 256, 1024, 4096)
"""Neighbours among which five distinct classes are looked for, until they are there."""


class Examiner:
    """Asks an index for photos."""

    def __init__(self, version: IndexVersion, shards: ShardSet) -> None:
        self._manifest = version.manifest
        self._items = version.items
        self._shards = shards

    def rows_of(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Where photos are in the gallery; -1 for those that are not."""
        rows = {self._items.item_id(row): row for row in range(len(self._items))}
        return np.array([rows.get(path, -1) for path in paths], np.int64)

    def answers(self, queries: NDArray[np.float32], own: NDArray[np.int64]) -> list[Answer]:
        """What is known of each query when the gallery item `own` is left out."""
        k = self._manifest.k
        nearest = self._neighbours(queries, own, max(k, TOP))
        classes = self._classes(queries, own)
        return [
            Answer(labels, deep, vote(scores[:k], labels[:k], self._manifest.temperature))
            for (labels, scores), deep in zip(nearest, classes, strict=True)
        ]

    def _classes(self, queries: NDArray[np.float32], own: NDArray[np.int64]) -> list[list[Label]]:
        """For each query, labels of neighbours enough for five classes at every level."""
        found: dict[int, list[Label]] = {}
        pending = np.arange(len(queries))
        for depth in _DEPTHS:
            if not len(pending):
                break
            deeper = self._neighbours(queries[pending], own[pending], depth)
            found.update(zip(pending.tolist(), (labels for labels, _ in deeper), strict=True))
            lacking = [row for row in pending.tolist() if len(found[row]) == depth and _few(found[row])]
            pending = np.array(lacking, np.int64)
        return [found[row] for row in range(len(queries))]

    def _neighbours(
        self, queries: NDArray[np.float32], own: NDArray[np.int64], k: int
    ) -> list[tuple[list[Label], list[float]]]:
        """Labels and scores of the k nearest for each query, or of fewer."""
        hits = self._shards.search(queries, k + 1)
        keep = (hits.ids >= 0) & (hits.ids != own[:, None])
        return [
            (self._labels(ids[kept][:k]), scores[kept][:k].tolist())
            for ids, scores, kept in zip(hits.ids, hits.scores, keep, strict=True)
        ]

    def _labels(self, rows: NDArray[np.int64]) -> list[Label]:
        return [self._items.labels[position] for position in self._items.label_of[rows]]


def _few(labels: Sequence[Label]) -> bool:
    return any(len(distinct(labels, level)) < TOP for level in LEVELS)
