"""The nearest photos of every photo of a collection, itself left out: exact, in blocks of bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_ROWS = 2048
"""Rows of a block: its scores and where they belong take 50 MB."""

NOBODY = -1


@dataclass(frozen=True)
class Neighbours:
    rows: NDArray[np.int32]
    """(photos, k), the nearest first; NOBODY where there are no more."""
    scores: NDArray[np.float32]
    """(photos, k) cosines; -inf where there are no more."""

    @classmethod
    def none(cls, photos: int, k: int) -> Self:
        return cls(np.full((photos, k), NOBODY, np.int32), np.full((photos, k), -np.inf, np.float32))

    def only(self, which: NDArray[np.bool_]) -> "Neighbours":
        """Those that `which`, (photos, k), says, still the nearest first."""
        order = np.argsort(~which, axis=1, kind="stable")
        rows, scores = np.where(which, self.rows, NOBODY), np.where(which, self.scores, np.float32(-np.inf))
        return Neighbours(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))


def nearest(matrix: NDArray[Any], k: int, advance: Callable[[int], object]) -> Neighbours:
    """Among all photos; `matrix` is (photos, dimension). `advance` is told of every photo that is done."""
    found = Neighbours.none(len(matrix), k)
    for start, block in blocks(matrix):
        for other, others in blocks(matrix):
            scores = block @ others.T
            if start == other:
                np.fill_diagonal(scores, -np.inf)
            _keep_best(found, start, scores, np.arange(other, other + len(others), dtype=np.int32))
        advance(len(block))
    return found


def nearest_of_label(matrix: NDArray[Any], labels: NDArray[np.int64], k: int) -> Neighbours:
    """Among the other photos of the photo's own label; `labels` are numbers, one a photo."""
    found = Neighbours.none(len(matrix), k)
    for rows in np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]):
        within = nearest(matrix[rows], k, lambda _: None)
        found.rows[rows] = np.where(within.rows == NOBODY, NOBODY, rows[within.rows])
        found.scores[rows] = within.scores
    return found


def blocks(matrix: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Rows from a start on, as float32 of unit length."""
    for start in range(0, len(matrix), _ROWS):
        block = np.asarray(matrix[start : start + _ROWS], np.float32)
        yield start, block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _keep_best(found: Neighbours, start: int, scores: NDArray[np.float32], rows: NDArray[np.int32]) -> None:
    """Puts the best of `scores`, of the photos from `start` on with `rows`, in the place of worse ones."""
    these, k = slice(start, start + len(scores)), found.rows.shape[1]
    if len(rows) > k:
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        scores, candidates = np.take_along_axis(scores, best, axis=1), rows[best]
    else:
        candidates = np.broadcast_to(rows, scores.shape)
    scores = np.hstack([found.scores[these], scores])
    candidates = np.where(np.isneginf(scores), NOBODY, np.hstack([found.rows[these], candidates]))
    order = np.lexsort((candidates, -scores), axis=1)[:, :k]
    found.scores[these] = np.take_along_axis(scores, order, axis=1)
    found.rows[these] = np.take_along_axis(candidates, order, axis=1)
