"""An index, asked for photos whose labels are known, as a caller of the service would ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.photo_list import Photo
from search_svc.engine.local import LocalEngine
from search_svc.evaluation.accuracy import LEVELS, RECALL_AT, TOP, Outcomes, distinct, outcomes, recalls
from search_svc.index.version import IndexVersion
from search_svc.voting.answer import Answer, Answerer
from search_svc.voting.labels import Label
from search_svc.voting.neighbours import QueryNeighbours

_DEPTHS = (64, 256, 1024, 4096)
"""Neighbours among which five distinct classes are looked for, until they are there."""


@dataclass(frozen=True)
class Examined:
    """What came of one photo."""

    item: str
    truth: Label
    known: bool
    """Whether the gallery holds a photo of its label, beside itself."""
    in_gallery: bool
    """Then it was left out of its own neighbours."""
    found: QueryNeighbours
    """The voters; fewer than k if the gallery has no more."""
    answer: Answer | None
    known_scores: Mapping[str, float]
    right: Outcomes
    """Empty if the label is not known."""
    recall: Mapping[int, bool]


class Examiner:
    """Asks an index for photos."""

    def __init__(self, version: IndexVersion, shards: LocalEngine) -> None:
        self.answerer = Answerer(version)
        self._k = version.manifest.k
        self._items = version.items
        self._shards = shards
        self._rows = {version.items.item_id(row): row for row in range(len(version.items))}
        self._photos_of = version.items.sizes

    def examine(self, queries: NDArray[np.float32], photos: Sequence[Photo], *, cars: bool = True) -> list[Examined]:
        """What comes of photos with these `(N, dimension)` embeddings.

        Pictures that are not of `cars` are of no label, and none of the gallery's, whatever they are called.
        """
        own = np.array([self._rows.get(photo.path, -1) if cars else -1 for photo in photos], np.int64)
        found = self._neighbours(queries, own, self._k)
        known = [cars and self._knows(photo.label, row) for photo, row in zip(photos, own.tolist(), strict=True)]
        nearest = self._nearest(queries, own, np.flatnonzero(known))
        return [
            self._examined(photo, row >= 0, each, nearest.get(place))
            for place, (photo, row, each) in enumerate(zip(photos, own.tolist(), found, strict=True))
        ]

    def _knows(self, label: Label, own: int) -> bool:
        return self._photos_of.get(label.label, 0) > (own >= 0)

    def _examined(
        self, photo: Photo, in_gallery: bool, found: QueryNeighbours, nearest: Sequence[Label] | None
    ) -> Examined:
        known, truth = nearest is not None, photo.label
        answer = self.answerer.answer([found])
        scores = self.answerer.known_scores([found])
        right = outcomes(truth, nearest, answer) if nearest is not None else {}
        recall = recalls(truth, nearest) if nearest is not None else {}
        return Examined(photo.path, truth, known, in_gallery, found, answer, scores, right, recall)

    def _nearest(
        self, queries: NDArray[np.float32], own: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> dict[int, list[Label]]:
        """For each of some queries, labels of neighbours enough for five classes at every level, nearest first."""
        nearest: dict[int, list[Label]] = {}
        for depth in _DEPTHS:
            if not len(rows):
                break
            deeper = self._neighbours(queries[rows], own[rows], depth)
            nearest.update(zip(rows.tolist(), (found.labels for found in deeper), strict=True))
            lacking = [row for row in rows.tolist() if len(nearest[row]) == depth and _few(nearest[row])]
            rows = np.array(lacking, np.int64)
        return nearest

    def _neighbours(self, queries: NDArray[np.float32], own: NDArray[np.int64], k: int) -> list[QueryNeighbours]:
        """The k nearest of each query, less itself."""
        hits = self._shards.search(queries, k + bool((own >= 0).any())).hits
        keep = (hits.ids >= 0) & (hits.ids != own[:, None])
        return [
            self._found(ids[kept][:k], scores[kept][:k])
            for ids, scores, kept in zip(hits.ids, hits.scores, keep, strict=True)
        ]

    def _found(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> QueryNeighbours:
        labels = [self._items.labels[position] for position in self._items.label_of[rows].tolist()]
        return QueryNeighbours(rows.tolist(), labels, scores.tolist())


def _few(labels: Sequence[Label]) -> bool:
    return len(labels) < max(RECALL_AT) or any(len(distinct(labels, level)) < TOP for level in LEVELS)
