"""Fits how votes are weighted: the number of neighbours, the temperature, the prior for the size of a class, and the means' weight.

The held-out photos are asked twice: where their own label was thinned to a handful of photos, and where others were. So labels that
were enrolled lately count as much as those that the gallery was built of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search_svc.fitting.trials import Trial
from search_svc.voting.labels import Label
from search_svc.voting.vote import Weighting, path

KS = (5, 7, 10, 15, 20, 30)
TEMPERATURES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
"""Temperatures that are tried, in units of the mean squared length of the embeddings."""
PRIORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
MEAN_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Weights of the means that are tried, in units of the mean squared length of the embeddings."""
_TOLERANCE = 0.02
"""Losses that exceed the best by no more count as equal for the choice of k; then the least k wins, for it costs less."""


@dataclass(frozen=True)
class Voters:
    """The voters of held-out photos: arrays (Q, k), nearest first."""

    scores: NDArray[np.float64]
    positions: NDArray[np.int64]
    """Their labels, as numbers; -1 where there are fewer than k."""
    means: NDArray[np.float64]
    """The cosines of the photos with the means of these labels."""
    sizes: NDArray[np.int64]
    """The photos that the gallery has of these labels; 1 where there is none."""
    truth: NDArray[np.int64]
    """(Q,) The labels of the photos."""

    @classmethod
    def of(cls, trials: Sequence[Trial], k: int) -> Self:
        """Return the k voters that each photo has."""
        parts = [_voters(trial, k) for trial in trials]
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


def _voters(trial: Trial, k: int) -> tuple[NDArray[np.float64] | NDArray[np.int64], ...]:
    positions = trial.neighbours.positions[:, :k]
    means = trial.similarities(np.arange(len(positions)), positions)
    sizes = np.where(positions < 0, 1, trial.sizes[positions])
    return trial.neighbours.scores[:, :k], positions, means, sizes, trial.neighbours.truth


def fit_weighting(
    voters: Voters, labels: Sequence[Label], unit: float, *, k: int | None, temperature: float | None
) -> tuple[int, Weighting]:
    """Return the k and the weighting with the least loss on the held-out photos; a `k` or `temperature` given is kept.

    `unit` is the mean squared length of the embeddings.
    """
    found = voters.scores.shape[1]
    ks = [k] if k else [each for each in KS if each <= found] or [found]
    temperatures = [temperature] if temperature else [unit * each for each in TEMPERATURES]
    settings = [Weighting(*each) for each in product(temperatures, PRIORS, [unit * each for each in MEAN_WEIGHTS])]
    levels = [_level(labels, depth)[voters.positions] for depth in (1, 2, 3)]
    truths = [_level(labels, depth)[voters.truth] for depth in (1, 2, 3)]
    best: dict[int, tuple[float, Weighting]] = {}
    for size in ks:
        alike = [level[:, :size, None] == level[:, None, :size] for level in levels]
        hits = [level[:, :size] == truth[:, None] for level, truth in zip(levels, truths, strict=True)]
        losses = [sum(map(_brier, [_weights(voters, size, each)] * 3, alike, hits)) for each in settings]
        best[size] = min(losses), settings[int(np.argmin(losses))]
    most = min(loss for loss, _ in best.values()) + _TOLERANCE
    least = min(size for size, (loss, _) in best.items() if loss <= most)
    return least, best[least][1]


def _level(labels: Sequence[Label], depth: int) -> NDArray[np.int64]:
    """Number the nodes at a depth of the tree, and return that of each label (L + 1,).

    The last entry is for the position -1, which stands for no neighbour.
    """
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([*(numbers.setdefault(path(label)[:depth], len(numbers)) for label in labels), -1], np.int64)


def _weights(voters: Voters, k: int, weighting: Weighting) -> NDArray[np.float32]:
    """Return the weights (Q, k) of the k nearest neighbours; each row sums to 1."""
    scores = voters.scores[:, :k] + weighting.mean_weight * voters.means[:, :k]
    with np.errstate(invalid="ignore"):
        weights: NDArray[np.float64] = np.exp((scores - scores.max(axis=1, keepdims=True)) / weighting.temperature)
    weights *= voters.sizes[:, :k].astype(np.float64) ** -weighting.prior
    weights[voters.positions[:, :k] < 0] = 0
    whole: NDArray[np.float64] = weights.sum(axis=1, keepdims=True)
    return (weights / whole).astype(np.float32)


def _brier(weights: NDArray[np.float32], alike: NDArray[np.bool_], hits: NDArray[np.bool_]) -> float:
    """Return the Brier score (Brier 1950) of the shares of one level: 0 to 2, the mean over the photos.

    It is the squared distance of the shares from the truth, which is 1 for the right node and 0 for all others.
    """
    shares = np.einsum("qij,qj->qi", alike, weights)
    right = (weights * hits).sum(axis=1)
    return float(np.mean((weights * shares).sum(axis=1) - 2 * right + 1))
