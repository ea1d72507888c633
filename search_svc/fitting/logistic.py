"""Logistic regression by Newton's method, for a few features and some thousands of photos."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_svc.voting.calibration import LARGEST_LOGIT, LogisticModel

_RIDGE = 5.0
"""The weight of the penalty that draws standardised slopes to their defaults, in photos."""
_STEPS = 100
_TOLERANCE = 1e-10
_JITTER = 1e-9
"""The penalty on the intercept: just enough to keep the equations solvable."""


def fit(
    features: NDArray[np.float64], right: NDArray[np.bool_], slopes: Sequence[float]
) -> tuple[float, tuple[float, ...]]:
    """Fit an intercept and slopes by which features (N, F) predict the outcomes `right` (N,).

    A ridge penalty draws the fitted slopes to `slopes`: the fewer photos there are, the nearer they stay to these.
    """
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(features)), (features - centre) / spread])
    # Targets a little within 0 and 1 (Platt 1999): if all photos are right, the next one may still be wrong.
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    weights = _newton(design, target, np.array([centre @ slopes, *(spread * slopes)]))
    fitted = weights[1:] / spread
    return float(weights[0] - fitted @ centre), tuple(fitted.tolist())


def fitted(features: Sequence[tuple[float, ...]], right: Sequence[bool], slopes: Sequence[float]) -> LogisticModel:
    return LogisticModel(*fit(np.array(features), np.array(right), slopes))


def _newton(
    design: NDArray[np.float64], target: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Minimise the penalised loss from `start`. The penalty draws all weights but the first, the intercept, to `start`."""
    ridge = np.array([_JITTER, *[_RIDGE] * (len(start) - 1)])

    def loss(weights: NDArray[np.float64]) -> float:
        logits = design @ weights
        return float((np.logaddexp(0, logits) - target * logits).sum() + (ridge * (weights - start) ** 2).sum() / 2)

    weights = start
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(design @ weights, -LARGEST_LOGIT, LARGEST_LOGIT)))
        gradient = design.T @ (chances - target) + ridge * (weights - start)
        step = np.linalg.solve((design.T * (chances * (1 - chances))) @ design + np.diag(ridge), gradient)
        # A whole step may overshoot where chances are all but 0 or 1. The loss is convex, so a part of the step does not.
        while np.abs(step).max() > _TOLERANCE and loss(weights - step) > loss(weights):
            step = step / 2
        weights = weights - step
        if np.abs(step).max() <= _TOLERANCE:
            break
    return weights
