"""Logistic regression by Newton's method: all that a handful of features and some thousands of photos need."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_RIDGE = 5.0
"""How hard standardised slopes are held, in photos."""
_STEPS = 100
_TOLERANCE = 1e-10
_JITTER = 1e-9
_LARGEST_LOGIT = 30.0


def fit(
    features: NDArray[np.float64], right: NDArray[np.bool_], slopes: Sequence[float]
) -> tuple[float, tuple[float, ...]]:
    """The intercept and slopes of `(N, F)` features that make `right`, `(N,)`, likeliest.

    `slopes` are what they are without photos that say otherwise (a ridge around them): the fewer photos, the nearer.
    """
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(features)), (features - centre) / spread])
    # As Platt (1999): not even photos that are all right promise more than one more photo would bear out.
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    weights = _newton(design, target, np.array([centre @ slopes, *(spread * slopes)]))
    fitted = weights[1:] / spread
    return float(weights[0] - fitted @ centre), tuple(fitted.tolist())


def _newton(
    design: NDArray[np.float64], target: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """From `start`, around which all weights but the first, the intercept, are held."""
    ridge = np.array([_JITTER, *[_RIDGE] * (len(start) - 1)])

    def loss(weights: NDArray[np.float64]) -> float:
        logits = design @ weights
        return float((np.logaddexp(0, logits) - target * logits).sum() + (ridge * (weights - start) ** 2).sum() / 2)

    weights = start
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(design @ weights, -_LARGEST_LOGIT, _LARGEST_LOGIT)))
        gradient = design.T @ (chances - target) + ridge * (weights - start)
        step = np.linalg.solve((design.T * (chances * (1 - chances))) @ design + np.diag(ridge), gradient)
        # A whole step may overshoot where chances are all but 0 or 1. The loss is convex: some part of it does not.
        while np.abs(step).max() > _TOLERANCE and loss(weights - step) > loss(weights):
            step = step / 2
        weights = weights - step
        if np.abs(step).max() <= _TOLERANCE:
            break
    return weights
