"""The weights of votes, fitted: how many neighbours, what temperature, what prior for the size of a class."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from search_svc.fitting.held_out import HeldOutNeighbours
from search_svc.voting.labels import Label
from search_svc.voting.vote import Weighting, path

KS = (5, 7, 10, 15, 20, 30)
TEMPERATURES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
"""Times the mean squared length of the embeddings."""
PRIORS = (0.0, 0.25, 0.5, 1.0)
_TOLERANCE = 0.01
"""Of k, then of the prior, the least whose loss exceeds the best by no more: fewer neighbours cost less."""


def fit_weighting(
    asked: HeldOutNeighbours,
    labels: Sequence[Label],
    sizes: Sequence[int],
    unit: float,
    *,
    k: int | None,
    temperature: float | None,
) -> tuple[int, Weighting]:
    """What is not given of k and weighting, as it has the least loss.

    `sizes` are aligned with `labels`; `unit` is the embeddings' mean squared length.
    """
    ks = [k] if k else [each for each in KS if each <= asked.scores.shape[1]] or [asked.scores.shape[1]]
    temperatures = [temperature] if temperature else [unit * each for each in TEMPERATURES]
    levels = [_level(labels, depth)[asked.positions] for depth in (1, 2, 3)]
    truths = [_level(labels, depth)[asked.truth] for depth in (1, 2, 3)]
    losses = {}
    for size in ks:
        alike = [level[:, :size, None] == level[:, None, :size] for level in levels]
        hits = [level[:, :size] == truth[:, None] for level, truth in zip(levels, truths, strict=True)]
        for heat, prior in product(temperatures, PRIORS):
            weights = _weights(asked, size, Weighting(heat, prior), sizes)
            losses[size, prior, heat] = sum(map(_brier, [weights] * 3, alike, hits))
    return _thriftiest(losses)


def _thriftiest(losses: dict[tuple[int, float, float], float]) -> tuple[int, Weighting]:
    most = min(losses.values()) + _TOLERANCE
    k, prior = min((size, prior) for (size, prior, _), loss in losses.items() if loss <= most)
    heat = min((loss, heat) for (size, each, heat), loss in losses.items() if (size, each) == (k, prior))[1]
    return k, Weighting(heat, prior)


def _level(labels: Sequence[Label], depth: int) -> NDArray[np.int64]:
    """(L + 1,) number of each label's node at a depth of the tree; the last, for the position -1, is nobody's."""
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([*(numbers.setdefault(path(label)[:depth], len(numbers)) for label in labels), -1], np.int64)


def _weights(asked: HeldOutNeighbours, k: int, weighting: Weighting, sizes: Sequence[int]) -> NDArray[np.float32]:
    """(Q, k), each row a whole vote."""
    with np.errstate(invalid="ignore"):
        weights = np.exp((asked.scores[:, :k] - asked.scores[:, :1]) / weighting.temperature)
    weights *= np.append(sizes, 1)[asked.positions[:, :k]].astype(np.float64) ** -weighting.prior
    weights[asked.positions[:, :k] < 0] = 0
    whole: NDArray[np.float64] = weights.sum(axis=1, keepdims=True)
    return (weights / whole).astype(np.float32)


def _brier(weights: NDArray[np.float32], alike: NDArray[np.bool_], hits: NDArray[np.bool_]) -> float:
    """The Brier score of a level's shares (1950): their squared distance from the truth, 0 to 2, mean over photos."""
    shares = np.einsum("qij,qj->qi", alike, weights)
    right = (weights * hits).sum(axis=1)
    return float(np.mean((weights * shares).sum(axis=1) - 2 * right + 1))
