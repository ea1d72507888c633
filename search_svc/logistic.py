"""Logistic regression by Newton's method: all that a handful of features and some thousands of photos need."""

import numpy as np
from numpy.typing import NDArray

_RIDGE = 1.0
"""Of each standardised slope, in photos: keeps slopes finite where the features part right from wrong without a miss."""
_STEPS = 100
_TOLERANCE = 1e-10
_LARGEST_LOGIT = 30.0


def fit(features: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The intercept and slopes, `(F + 1,)`, of `(N, F)` features: the most likely given `right`, `(N,)`, and the ridge."""
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(features)), (features - centre) / spread])
    penalty = np.diag([0.0, *[_RIDGE] * features.shape[1]])
    # As Platt (1999): not even photos that are all right promise more than one more photo would bear out.
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    weights = _newton(design, target, penalty)
    slopes = weights[1:] / spread
    return np.concatenate([[weights[0] - slopes @ centre], slopes])


def _newton(
    design: NDArray[np.float64], target: NDArray[np.float64], penalty: NDArray[np.float64]
) -> NDArray[np.float64]:
    weights = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chances = sigmoid(design @ weights)
        gradient = design.T @ (target - chances) - penalty @ weights
        hessian = (design.T * (chances * (1 - chances))) @ design + penalty
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(weights)), gradient)
        weights = weights + step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-300))
        if np.abs(step).max() < _TOLERANCE:
            break
    return weights


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    chances: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT)))
    return chances
