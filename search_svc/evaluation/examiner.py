"""Asks an index for photos whose labels are known, as a caller of the service would, and judges its answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.photo_list import Photo
from search_svc.engine.local import LocalEngine
from search_svc.evaluation.accuracy import CLASSES, RECALL_AT, TOP, Outcomes, distinct, outcomes, recalls
from search_svc.index.version import IndexVersion, VersionManifest
from search_svc.voting.answer import Answer, Answerer
from search_svc.voting.calibration import Calibration
from search_svc.voting.labels import Label
from search_svc.voting.means import Means
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.years import Years

_DEPTHS = (64, 256, 1024, 4096)
"""Numbers of neighbours to search for, one after the other, until they have five distinct classes."""


@dataclass(frozen=True)
class ExaminedPhoto:
    """A photo, its neighbours, the answer for it, and whether that is right."""

    item: str
    """The path of the photo, which is its item id if it is in the gallery."""
    truth: Label
    known: bool
    """Whether the gallery holds another photo of its label."""
    in_gallery: bool
    """Whether the photo is in the gallery itself; it was then left out of its own neighbours."""
    found: QueryNeighbours
    """The neighbours that vote, fewer than k if the gallery has no more; and whether a car was found in the photo."""
    answer: Answer | None
    known_scores: Mapping[str, float]
    """Scores of how surely the gallery knows the car: see Answerer.known_scores."""
    right: Outcomes
    """Whether the photo was recognised, by (level, measure); empty if its label is not known."""
    recall: Mapping[int, bool]
    """Whether one of the K nearest photos has the label, by K; empty if its label is not known."""


class Examiner:
    """Asks one index for photos, and judges its answers."""

    def __init__(self, version: IndexVersion, shards: LocalEngine) -> None:
        self._whole = Answerer(version)
        self._k = version.manifest.k
        self._version = version
        self._items = version.items
        self._shards = shards
        self._rows = {version.items.item_id(row): row for row in range(len(version.items))}
        self._photos_of = version.items.sizes

    def examine(
        self, queries: NDArray[np.float32], photos: Sequence[Photo], *, cars: bool = True
    ) -> list[ExaminedPhoto]:
        """Ask for photos with the embeddings `queries` (N, dimension).

        If they are not `cars`, their labels and paths mean nothing: none is known, and none is in the gallery.
        """
        own = np.array([self._rows.get(photo.path, -1) if cars else -1 for photo in photos], np.int64)
        found = [
            dataclasses.replace(self._found(query, row, *nearest), no_car_found=photo.no_car_found)
            for query, row, nearest, photo in zip(
                queries, own.tolist(), self._hits(queries, own, self._k), photos, strict=True
            )
        ]
        known = [cars and self._knows(photo.label, row) for photo, row in zip(photos, own.tolist(), strict=True)]
        nearest = self._nearest(queries, own, np.flatnonzero(known))
        return [
            self._examined(photo, row, each, nearest.get(place))
            for place, (photo, row, each) in enumerate(zip(photos, own.tolist(), found, strict=True))
        ]

    def answerer(self, photo: ExaminedPhoto) -> Answerer:
        """Return what answers for a photo: the gallery, without the photo itself if that is in it."""
        return self._answerer(self._rows[photo.item] if photo.in_gallery else -1)

    def _answerer(self, own: int) -> Answerer:
        return self._whole if own < 0 else Answerer(_Without(self._version, own))

    def _knows(self, label: Label, own: int) -> bool:
        return self._photos_of.get(label.label, 0) > (own >= 0)

    def _examined(
        self, photo: Photo, own: int, found: QueryNeighbours, nearest: Sequence[Label] | None
    ) -> ExaminedPhoto:
        known, truth, answerer = nearest is not None, photo.label, self._answerer(own)
        answer = answerer.answer([found])
        scores = answerer.known_scores([found])
        right = outcomes(truth, nearest, answer) if nearest is not None else {}
        recall = recalls(truth, nearest) if nearest is not None else {}
        return ExaminedPhoto(photo.path, truth, known, own >= 0, found, answer, scores, right, recall)

    def _nearest(
        self, queries: NDArray[np.float32], own: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> dict[int, list[Label]]:
        """Return, for each of the queries in `rows`, the labels of its neighbours, nearest first.

        They reach far enough for five classes at every level, if the nearest 4096 photos have so many.
        """
        nearest: dict[int, list[Label]] = {}
        for depth in _DEPTHS:
            if not len(rows):
                break
            deeper = self._hits(queries[rows], own[rows], depth)
            nearest.update(zip(rows.tolist(), (self._labels(found) for found, _ in deeper), strict=True))
            lacking = [row for row in rows.tolist() if len(nearest[row]) == depth and _few(nearest[row])]
            rows = np.array(lacking, np.int64)
        return nearest

    def _hits(
        self, queries: NDArray[np.float32], own: NDArray[np.int64], k: int
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Return the rows and scores of the k nearest photos of each query, other than its own photo in row `own` (-1: none)."""
        hits = self._shards.search(queries, k + bool((own >= 0).any())).hits
        keep = (hits.ids >= 0) & (hits.ids != own[:, None])
        return [
            (ids[kept][:k], scores[kept][:k]) for ids, scores, kept in zip(hits.ids, hits.scores, keep, strict=True)
        ]

    def _found(
        self, query: NDArray[np.float32], own: int, rows: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> QueryNeighbours:
        positions = self._items.label_of[rows]
        (means,) = self._means_without(own).similarities(query[None], positions[None]).tolist()
        return QueryNeighbours(rows.tolist(), self._labels(rows), scores.tolist(), means)

    def _labels(self, rows: NDArray[np.int64]) -> list[Label]:
        return [self._items.labels[position] for position in self._items.label_of[rows].tolist()]

    def _means_without(self, own: int) -> Means:
        """Return the means of the gallery less the photo in a row (-1: of the gallery as it is)."""
        means = self._version.means
        if own < 0:
            return means
        label = int(self._items.label_of[own])
        return means.with_changes({label: means.sum_of(label) - self._version.embeddings[own].astype(np.float64)})


@dataclass(frozen=True)
class _Without:
    """A gallery to answer from: an index version without the photo in a row, which does not count among those of its label."""

    version: IndexVersion
    row: int

    @property
    def calibration(self) -> Calibration | None:
        return self.version.calibration

    @property
    def manifest(self) -> VersionManifest:
        return self.version.manifest

    @property
    def typical(self) -> Mapping[str, float]:
        return self.version.typical

    @property
    def items(self) -> "_Counts":
        items = self.version.items
        label = items.labels[items.label_of[self.row]].label
        return _Counts({**items.sizes, label: items.sizes[label] - 1}, items.years)


@dataclass(frozen=True)
class _Counts:
    sizes: Mapping[str, int]
    years: Years


def _few(labels: Sequence[Label]) -> bool:
    return len(labels) < max(RECALL_AT) or any(len(distinct(labels, level)) < TOP for level in CLASSES)
