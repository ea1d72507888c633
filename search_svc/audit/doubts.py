"""Scores of how wrong a label looks, and of how little a picture looks like any car of the collection.

Both scores have the same unit: the median cosine of photos and their nearest neighbours, less the median cosine of photos
from different places of the collection. So they mean the same for models whose cosines are spread differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.audit.neighbours import NOBODY, Neighbours, blocks

NEAREST = 3
"""How many photos of a label are compared with a photo."""


@dataclass(frozen=True)
class Doubts:
    """The scores of each photo; arrays have the shape (photos,)."""

    label: NDArray[np.float64]
    """How much nearer photos of other labels are than those of its own; -inf for the only photo of a label."""
    witness: NDArray[np.int64]
    """The row of a photo of the likelier label; NOBODY if all neighbours have the photo's own label."""
    odd: NDArray[np.float64]
    """How far the photo is from its own label and from the nearest label: 0 is usual, 1 as far as any two photos are."""


def doubts(matrix: NDArray[Any], labels: NDArray[np.int64], near: Neighbours, own: Neighbours) -> Doubts:
    """Score the photos with the embeddings `matrix` (photos, dimension).

    `labels` (photos,) are numbers from 0 on, all in use. `near` are each photo's neighbours, `own` those of its own label;
    neither holds copies of the photo.
    """
    apart = _apart(matrix)
    others = _of_other_labels(near, labels)
    typical = float(np.median(_mean(near)))
    # If a label has one other photo, one photo of the other labels is held against it, not three.
    against = np.isfinite(own.scores[:, :NEAREST])
    ours = _mean(own)
    margin = np.where(against[:, 0], _mean(others, against) - ours, -np.inf)
    centre = _nearest_centre(matrix, labels)
    belonging = np.where(against[:, 0], (1 - _OWN) * centre + _OWN * ours, centre)
    usual = float(np.median(belonging))
    return Doubts(
        label=margin / max(typical - apart, _LEAST),
        witness=_witness(others, labels),
        odd=(usual - belonging) / max(usual - apart, _LEAST),
    )


_OWN = 0.25
"""The weight of a photo's own label in how odd it is. With more, a car with a wrong label would look like no car."""
_LEAST = 1e-3
"""The least value of a divisor: if photos are all alike, their differences must not become doubts."""
_PAIRS = 10_000


def _apart(matrix: NDArray[Any]) -> float:
    """Return the median cosine of photos that lie half the collection apart."""
    step = max(1, len(matrix) // _PAIRS)
    one = np.asarray(matrix[: len(matrix) // 2 : step], np.float32)
    other = np.asarray(matrix[len(matrix) // 2 :: step], np.float32)[: len(one)]
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.median(np.einsum("ij,ij->i", one, other) / np.maximum(lengths, np.finfo(np.float32).tiny)))


def _of_other_labels(near: Neighbours, labels: NDArray[np.int64]) -> Neighbours:
    """Return the neighbours of each photo that have another label."""
    other = (near.rows != NOBODY) & (labels[near.rows] != labels[:, None])
    return near.only(other)


def _mean(found: Neighbours, which: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return the mean cosine of the nearest three, or of those that the mask `which` names.

    A neighbour that the mask names but that is not there counts as -1.
    """
    scores = np.maximum(found.scores[:, :NEAREST].astype(np.float64), -1)
    counted = np.isfinite(found.scores[:, :NEAREST]) if which is None else which
    return np.asarray((scores * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1))


def _witness(others: Neighbours, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the nearest photo of the label that most of the three nearest have."""
    rows = others.rows[:, :NEAREST].astype(np.int64)
    voted = np.where(rows == NOBODY, NOBODY, labels[rows])
    votes = (voted[:, :, None] == voted[:, None, :]).sum(axis=2) * (rows != NOBODY)
    return np.asarray(rows[np.arange(len(rows)), votes.argmax(axis=1)])


def _nearest_centre(matrix: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each photo's cosine with the nearest mean of a label; the photo itself is left out of its label's mean."""
    sums = np.zeros((int(labels.max()) + 1, matrix.shape[1]), np.float32)
    for start, block in blocks(matrix):
        np.add.at(sums, labels[start : start + len(block)], block)
    squares = np.square(sums, dtype=np.float64).sum(axis=1)
    nearest = np.empty(len(matrix))
    for start, block in blocks(matrix):
        mine, rows = labels[start : start + len(block)], np.arange(len(block))
        dots = (block @ sums.T).astype(np.float64)
        cosines = dots / np.sqrt(np.maximum(squares, _LEAST))
        dot = dots[rows, mine]
        rest = np.sqrt(np.maximum(squares[mine] - 2 * dot + 1, 0))
        cosines[rows, mine] = np.where(rest > _LEAST, (dot - 1) / np.maximum(rest, _LEAST), -1)
        nearest[start : start + len(block)] = cosines.max(axis=1)
    return nearest


def numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Number the distinct names from 0 on, and return the number of each name."""
    return np.unique(np.array(names, object), return_inverse=True)[1].astype(np.int64)
