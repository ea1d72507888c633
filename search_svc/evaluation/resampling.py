"""Bootstrap intervals (Efron 1979): how far a figure would move with other photos of the same kind.

Samples as large as the photos are drawn from them, with replacement, and the figure is computed for each sample. The
interval holds the middle 95 % of these values. It says nothing about another model, gallery or kind of photo.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
"""The number of resamples for shares and differences, which can be computed without drawing photos."""
COSTLY_RESAMPLES = 1_000
"""The number of resamples for figures of a whole distribution, such as ECE or AUROC."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def share(right: NDArray[np.bool_], seed: int) -> Estimate:
    """Estimate the share of photos that are right; there must be a photo.

    If all are right, or none is, resamples cannot differ. The interval is then the exact one (Clopper and Pearson 1934).
    """
    if right.all() or not right.any():
        least = ((1 - LEVEL) / 2) ** (1 / len(right))
        return Estimate(1.0, least, 1.0) if right.all() else Estimate(0.0, 0.0, 1 - least)
    rng = np.random.default_rng(seed)
    # The number of right photos in a resample is binomial, so there is no need to draw photos.
    drawn = rng.binomial(len(right), right.mean(), RESAMPLES) / len(right)
    return estimate(float(right.mean()), drawn)


def paired_difference(one: NDArray[Any], other: NDArray[Any], seed: int) -> Estimate:
    """Estimate the mean of `one - other`, where the n-th entries of both belong to one photo.

    A photo is drawn with both its outcomes, so photos that both get right, or both wrong, do not widen the interval.
    """
    rng = np.random.default_rng(seed)
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    values, counts = np.unique(difference, return_counts=True)
    # How often each value occurs in a resample is multinomial, so there is no need to draw photos.
    drawn = rng.multinomial(len(difference), counts / counts.sum(), RESAMPLES) @ values / len(difference)
    return estimate(float(difference.mean()), drawn)


def mean(values: NDArray[Any], seed: int) -> Estimate:
    """Estimate the mean of values, one a photo."""
    return paired_difference(values, np.zeros(len(values)), seed)


def resampled(figure: Callable[..., float], *samples: NDArray[Any], seed: int) -> Estimate:
    """Estimate a figure of several samples, which are drawn independently. A sample is an array with a photo a row."""
    return estimate(figure(*samples), _drawn(figure, samples, seed))


def resampled_gap(figure: Callable[..., float], sample: NDArray[Any], seed: int) -> Estimate:
    """Estimate a figure that chance makes larger, and resampling larger again: a mean of gaps, which is never below 0.

    Its interval is that of the basic bootstrap (Davison and Hinkley 1997), which takes off what resampling adds. If it
    does not reach the figure, it is extended to it.
    """
    value, drawn = figure(sample), _drawn(figure, (sample,), seed)
    added = estimate(value, drawn)
    return Estimate(value, max(0.0, min(value, 2 * value - added.high)), max(value, 2 * value - added.low))


def _drawn(figure: Callable[..., float], samples: Sequence[NDArray[Any]], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    drawn = (
        figure(*(sample[rng.integers(len(sample), size=len(sample))] for sample in samples))
        for _ in range(COSTLY_RESAMPLES)
    )
    return np.fromiter(drawn, np.float64, COSTLY_RESAMPLES)


def estimate(value: float, drawn: NDArray[np.float64]) -> Estimate:
    """Return the figure with the interval that holds the middle 95 % of the values of its resamples."""
    low, high = np.percentile(drawn, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return Estimate(value, float(low), float(high))
