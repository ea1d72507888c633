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
from search_svc.voting.vote import LEVELS, Weighting, path

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
    mean_weights = [unit * each for each in MEAN_WEIGHTS]
    settings = [Weighting(*each) for each in product(temperatures, PRIORS, mean_weights)]
    best: dict[int, tuple[float, Weighting]] = {}
    for size in ks:
        by_setting = losses(voters, labels, size, temperatures, mean_weights)
        best[size] = float(by_setting.min()), settings[int(by_setting.argmin())]
    most = min(loss for loss, _ in best.values()) + _TOLERANCE
    least = min(size for size, (loss, _) in best.items() if loss <= most)
    return least, best[least][1]


def losses(
    voters: Voters, labels: Sequence[Label], k: int, temperatures: Sequence[float], mean_weights: Sequence[float]
) -> NDArray[np.float64]:
    """Return the loss on the held-out photos, by temperature, prior and weight of the means, if the k nearest vote.

    It is the Brier score (Brier 1950) of the shares, the mean over the photos, added up over make, model and label: 0 to 6.
    """
    nodes = np.stack([_level(labels, depth) for depth in LEVELS.values()])
    voted, truths = nodes[:, voters.positions[:, :k]], nodes[:, voters.truth]
    alike = (voted[:, :, :, None] == voted[:, :, None, :]).sum(axis=0, dtype=np.float32)
    right = (voted == truths[:, :, None]).sum(axis=0, dtype=np.float32)
    sizes = [voters.sizes[:, :k].astype(np.float64) ** -prior for prior in PRIORS]
    found = np.empty((len(temperatures), len(PRIORS), len(mean_weights)))
    for (row, temperature), (column, weight) in product(enumerate(temperatures), enumerate(mean_weights)):
        weights = _weights(voters, k, temperature, weight)
        found[row, :, column] = [_brier(weights * each, alike, right) for each in sizes]
    return found


def _level(labels: Sequence[Label], depth: int) -> NDArray[np.int64]:
    """Number the nodes at a depth of the tree, and return that of each label (L + 1,).

    The last entry is for the position -1, which stands for no neighbour.
    """
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([*(numbers.setdefault(path(label)[:depth], len(numbers)) for label in labels), -1], np.int64)


def _weights(voters: Voters, k: int, temperature: float, mean_weight: float) -> NDArray[np.float64]:
    """Return how much the votes of the k nearest neighbours weigh (Q, k), whatever the sizes of their classes."""
    scores = voters.scores[:, :k] + mean_weight * voters.means[:, :k]
    with np.errstate(invalid="ignore"):
        weights: NDArray[np.float64] = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    weights[voters.positions[:, :k] < 0] = 0
    return weights


def _brier(weights: NDArray[np.float64], alike: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Return the squared distance of the shares from the truth, added up over the levels: the mean over the photos.

    The truth is 1 for the right node and 0 for all others. `alike` (Q, k, k) says at how many levels two voters have the same node,
    `right` (Q, k) at how many a voter's node is the right one.
    """
    shares = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    together = np.matmul(alike, shares[:, :, None])[:, :, 0]
    return float(np.mean((shares * (together - 2 * right)).sum(axis=1))) + len(LEVELS)
