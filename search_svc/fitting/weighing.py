"""Fits how votes are weighted: the number of neighbours, the temperature, and the prior for the size of a class."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from search_svc.fitting.held_out import HeldOutNeighbours
from search_svc.voting.labels import Label
from search_svc.voting.vote import Weighting, path

KS = (5, 7, 10, 15, 20, 30)
TEMPERATURES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
"""Temperatures that are tried, in units of the mean squared length of the embeddings."""
PRIORS = (0.0, 0.25, 0.5, 1.0)
_TOLERANCE = 0.01
"""Losses that exceed the best by no more count as equal; then the least k wins, and after it the least prior."""


def fit_weighting(
    neighbours: HeldOutNeighbours,
    labels: Sequence[Label],
    sizes: Sequence[int],
    unit: float,
    *,
    k: int | None,
    temperature: float | None,
) -> tuple[int, Weighting]:
    """Return the k and the weighting with the least loss on the held-out photos; a `k` or `temperature` given is kept.

    `sizes` are the photos that the gallery has of each of the `labels`. `unit` is the mean squared length of the embeddings.
    """
    found = neighbours.scores.shape[1]
    ks = [k] if k else [each for each in KS if each <= found] or [found]
    temperatures = [temperature] if temperature else [unit * each for each in TEMPERATURES]
    levels = [_level(labels, depth)[neighbours.positions] for depth in (1, 2, 3)]
    truths = [_level(labels, depth)[neighbours.truth] for depth in (1, 2, 3)]
    losses = {}
    for size in ks:
        alike = [level[:, :size, None] == level[:, None, :size] for level in levels]
        hits = [level[:, :size] == truth[:, None] for level, truth in zip(levels, truths, strict=True)]
        for heat, prior in product(temperatures, PRIORS):
            weights = _weights(neighbours, size, Weighting(heat, prior), sizes)
            losses[size, prior, heat] = sum(map(_brier, [weights] * 3, alike, hits))
    return _cheapest(losses)


def _cheapest(losses: dict[tuple[int, float, float], float]) -> tuple[int, Weighting]:
    """Choose among losses by (k, prior, temperature): the least k and prior within the tolerance, for they cost less."""
    most = min(losses.values()) + _TOLERANCE
    k, prior = min((size, prior) for (size, prior, _), loss in losses.items() if loss <= most)
    heat = min((loss, heat) for (size, each, heat), loss in losses.items() if (size, each) == (k, prior))[1]
    return k, Weighting(heat, prior)


def _level(labels: Sequence[Label], depth: int) -> NDArray[np.int64]:
    """Number the nodes at a depth of the tree, and return that of each label (L + 1,).

    The last entry is for the position -1, which stands for no neighbour.
    """
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([*(numbers.setdefault(path(label)[:depth], len(numbers)) for label in labels), -1], np.int64)


def _weights(neighbours: HeldOutNeighbours, k: int, weighting: Weighting, sizes: Sequence[int]) -> NDArray[np.float32]:
    """Return the weights (Q, k) of the k nearest neighbours; each row sums to 1."""
    scores, positions = neighbours.scores[:, :k], neighbours.positions[:, :k]
    with np.errstate(invalid="ignore"):
        weights = np.exp((scores - scores[:, :1]) / weighting.temperature)
    weights *= np.append(sizes, 1)[positions].astype(np.float64) ** -weighting.prior
    weights[positions < 0] = 0
    whole: NDArray[np.float64] = weights.sum(axis=1, keepdims=True)
    return (weights / whole).astype(np.float32)


def _brier(weights: NDArray[np.float32], alike: NDArray[np.bool_], hits: NDArray[np.bool_]) -> float:
    """Return the Brier score (Brier 1950) of the shares of one level: 0 to 2, the mean over the photos.

    It is the squared distance of the shares from the truth, which is 1 for the right node and 0 for all others.
    """
    shares = np.einsum("qij,qj->qi", alike, weights)
    right = (weights * hits).sum(axis=1)
    return float(np.mean((weights * shares).sum(axis=1) - 2 * right + 1))
