"""How far a figure would move with other photos of the same kind: bootstrap intervals (Efron 1979), by percentiles.

Photos are drawn again, as many as there were, with replacement, and the figure is taken of each such sample; the
interval holds the middle 95 % of what came out. It says nothing of another model, gallery or kind of photo.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
"""For shares, whose resamples need no drawing of photos."""
COSTLY_RESAMPLES = 1_000
"""For figures of a whole distribution."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float


def share(right: NDArray[np.bool_], seed: int) -> Estimate:
    """The share of photos that are right, of one or more.

    Where all are right, or none, resamples cannot differ; then the interval is the exact one (Clopper and Pearson 1934).
    """
    if right.all() or not right.any():
        least = ((1 - LEVEL) / 2) ** (1 / len(right))
        return Estimate(1.0, least, 1.0) if right.all() else Estimate(0.0, 0.0, 1 - least)
    rng = np.random.default_rng(seed)
    # Of n photos drawn again with replacement, the number of right ones is binomial: there is no need to draw them.
    drawn = rng.binomial(len(right), right.mean(), RESAMPLES) / len(right)
    return estimate(float(right.mean()), drawn)


def paired_difference(one: NDArray[Any], other: NDArray[Any], seed: int) -> Estimate:
    """The mean of `one - other`, aligned by photo: a photo is drawn with both its outcomes.

    So what both get right, or both wrong, widens the interval of neither.
    """
    rng = np.random.default_rng(seed)
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    values, counts = np.unique(difference, return_counts=True)
    # How often each value comes up in a resample is multinomial.
    drawn = rng.multinomial(len(difference), counts / counts.sum(), RESAMPLES) @ values / len(difference)
    return estimate(float(difference.mean()), drawn)


def resampled(figure: Callable[..., float], *samples: NDArray[Any], seed: int) -> Estimate:
    """The figure of samples, each drawn again by itself. A sample is an array with a photo a row."""
    return estimate(figure(*samples), _drawn(figure, samples, seed))


def resampled_gap(figure: Callable[..., float], sample: NDArray[Any], seed: int) -> Estimate:
    """The same of a figure that chance makes larger, and resampling larger again: a mean of gaps, 0 at least.

    So its interval is the basic bootstrap's (Davison and Hinkley 1997), which takes off what resampling has added; and
    reaches to the figure itself, if it ends below it.
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
    """The figure, and the middle of what resamples gave."""
    low, high = np.percentile(drawn, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return Estimate(value, float(low), float(high))
