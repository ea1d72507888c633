"""Finds the nearest photos of every photo of a collection, exactly, in blocks of bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_ROWS = 2048
"""Photos in a block. The scores of two blocks and their order take 50 MB."""

NOBODY = -1
"""The row that stands for no photo."""


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of each photo of a collection, nearest first."""

    rows: NDArray[np.int32]
    """(photos, k) The rows of the neighbours; NOBODY where there are no more."""
    scores: NDArray[np.float32]
    """(photos, k) Their cosines; -inf where there are no more."""

    @classmethod
    def none(cls, photos: int, k: int) -> Self:
        return cls(np.full((photos, k), NOBODY, np.int32), np.full((photos, k), -np.inf, np.float32))

    def only(self, which: NDArray[np.bool_]) -> "Neighbours":
        """Return the neighbours that the mask `which` (photos, k) names, nearest first."""
        order = np.argsort(~which, axis=1, kind="stable")
        rows, scores = np.where(which, self.rows, NOBODY), np.where(which, self.scores, np.float32(-np.inf))
        return Neighbours(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))


def nearest(matrix: NDArray[Any], k: int, advance: Callable[[int], object]) -> Neighbours:
    """Return the k nearest of all other photos. `matrix` is (photos, dimension); calls `advance(n)` after n photos."""
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
    """Return the k nearest of the other photos of each photo's own label. `labels` (photos,) are numbers from 0 on."""
    found = Neighbours.none(len(matrix), k)
    for rows in np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]):
        within = nearest(matrix[rows], k, lambda _: None)
        found.rows[rows] = np.where(within.rows == NOBODY, NOBODY, rows[within.rows])
        found.scores[rows] = within.scores
    return found


def blocks(matrix: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the matrix in blocks, each with its first row, as float32 vectors of unit length."""
    for start in range(0, len(matrix), _ROWS):
        block = np.asarray(matrix[start : start + _ROWS], np.float32)
        yield start, block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _keep_best(found: Neighbours, start: int, scores: NDArray[np.float32], rows: NDArray[np.int32]) -> None:
    """Merge `scores`, of the photos from `start` on with the photos `rows`, into what was found before."""
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
