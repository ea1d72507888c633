"""Which labels look wrong, and which pictures look like no car of the collection: scores from neighbours.

Both are in the same unit: the way from how alike the nearest photos are, at the median, to how alike two photos of
different places in the collection are. So they mean the same for models whose cosines are spread otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.audit.neighbours import NOBODY, Neighbours, blocks

NEAREST = 3
"""Photos of a label that speak for it."""


@dataclass(frozen=True)
class Doubts:
    """(photos,) each."""

    label: NDArray[np.float64]
    """How much nearer the photos of other labels are than those of its own; -inf where it is its label's only photo."""
    witness: NDArray[np.int64]
    """The photo whose label is the likelier one; NOBODY if all neighbours have the photo's own."""
    odd: NDArray[np.float64]
    """How far it is from its own label, and from whatever label is nearest: 0 is usual, 1 as far as any two photos."""


def doubts(matrix: NDArray[Any], labels: NDArray[np.int64], near: Neighbours, own: Neighbours) -> Doubts:
    """`labels` are numbers from 0 on, all in use; `near` and `own` are without the copies of a photo."""
    apart = _apart(matrix)
    others = _of_other_labels(near, labels)
    typical = float(np.median(_mean(near)))
    # Where a label has but one other photo, the nearest of the others stands against it, not three.
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
"""What a photo's own label says of how odd it is; more would take a car with a wrong label for none."""
_LEAST = 1e-3
"""Of the unit: photos that are all alike give no reason for doubts."""
_PAIRS = 10_000


def _apart(matrix: NDArray[Any]) -> float:
    """The cosine of two photos of different places, at the median: those that are half the collection apart."""
    step = max(1, len(matrix) // _PAIRS)
    one = np.asarray(matrix[: len(matrix) // 2 : step], np.float32)
    other = np.asarray(matrix[len(matrix) // 2 :: step], np.float32)[: len(one)]
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.median(np.einsum("ij,ij->i", one, other) / np.maximum(lengths, np.finfo(np.float32).tiny)))


def _of_other_labels(near: Neighbours, labels: NDArray[np.int64]) -> Neighbours:
    """The nearest with another label."""
    other = (near.rows != NOBODY) & (labels[near.rows] != labels[:, None])
    return near.only(other)


def _mean(found: Neighbours, which: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Of the nearest few, or those of them that `which` says; those that are not there count as opposite."""
    scores = np.maximum(found.scores[:, :NEAREST].astype(np.float64), -1)
    counted = np.isfinite(found.scores[:, :NEAREST]) if which is None else which
    return np.asarray((scores * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1))


def _witness(others: Neighbours, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The nearest of the label that most of the nearest few have."""
    rows = others.rows[:, :NEAREST].astype(np.int64)
    voted = np.where(rows == NOBODY, NOBODY, labels[rows])
    votes = (voted[:, :, None] == voted[:, None, :]).sum(axis=2) * (rows != NOBODY)
    return np.asarray(rows[np.arange(len(rows)), votes.argmax(axis=1)])


def _nearest_centre(matrix: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cosine with the mean of the label that is nearest, the photo itself left out of its label's mean."""
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
    """The same number for the same name, from 0 on."""
    return np.unique(np.array(names, object), return_inverse=True)[1].astype(np.int64)
