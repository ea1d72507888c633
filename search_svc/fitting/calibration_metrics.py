"""Metrics of confidence and of detection, in their usual definitions, as functions from arrays to numbers.

- Reliability and ECE: Guo et al. 2017, "On Calibration of Modern Neural Networks", with 15 bins of equal width.
- Risk, coverage and AURC: Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks".
- AUROC and FPR95 of unknown against known: Hendrycks and Gimpel 2017, "A Baseline for Detecting Misclassified and
  Out-of-Distribution Examples"; Liang et al. 2018, "Enhancing the Reliability of Out-of-distribution Image Detection".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
TPR = 0.95


@dataclass(frozen=True)
class Bin:
    """The photos whose confidence is above `low`, and `high` at most. The first bin also holds 0."""

    low: float
    high: float
    photos: int
    confidence: float
    """The mean confidence of the photos."""
    right: float
    """The share of the photos whose answer is right."""


@dataclass(frozen=True)
class RiskAtCoverage:
    """A point of the risk-coverage curve: only answers of this confidence or more are taken."""

    confidence: float
    coverage: float
    """The share of photos whose answers are taken."""
    risk: float
    """The share of the taken answers that are wrong."""


@dataclass(frozen=True)
class ThresholdRates:
    """The shares of cars whose scores are at or above a threshold, which accepts them as known."""

    threshold: float
    tpr: float
    """The share of known cars that are accepted."""
    fpr: float
    """The share of unknown cars that are accepted."""


def reliability(confidence: NDArray[Any], right: NDArray[np.bool_]) -> list[Bin]:
    """Return those of 15 bins of equal width that hold any photo, in order."""
    numbers = _bins(confidence)
    return [
        Bin(
            number / BINS,
            (number + 1) / BINS,
            len(chosen),
            float(confidence[chosen].mean()),
            float(right[chosen].mean()),
        )
        for number in range(BINS)
        if len(chosen := np.flatnonzero(numbers == number))
    ]


def ece(confidence: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error: the gap of confidence and accuracy, averaged over bins by their photos."""
    gaps = np.bincount(_bins(confidence), np.asarray(confidence, np.float64) - right, BINS)
    return float(np.abs(gaps).sum() / len(right))


def _bins(confidence: NDArray[Any]) -> NDArray[np.int64]:
    return np.clip(np.ceil(np.asarray(confidence, np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)


def risk_coverage(confidence: NDArray[Any], right: NDArray[np.bool_]) -> list[RiskAtCoverage]:
    """Return a point for each distinct confidence, highest first. The last covers all photos."""
    values, photos, wrong = _by_value(confidence, ~right)
    taken, mistakes = np.cumsum(photos[::-1]), np.cumsum(wrong[::-1])
    points = zip(values[::-1].tolist(), (taken / len(right)).tolist(), (mistakes / taken).tolist(), strict=True)
    return [RiskAtCoverage(*point) for point in points]


def aurc(confidence: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Return the area under the risk-coverage curve: the mean risk of the 1, 2, ... n most confident answers.

    Answers of the same confidence have no order. Each counts as wrong as they are on average, which is the expectation over
    random orders.
    """
    _, photos, wrong = _by_value(confidence, ~right)
    mistakes = np.cumsum(np.repeat((wrong / photos)[::-1], photos[::-1]))
    return float(np.mean(mistakes / np.arange(1, len(right) + 1)))


def _by_value(
    values: NDArray[Any], marked: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct values, ascending, how often each occurs, and how often it is marked."""
    distinct, places = np.unique(values, return_inverse=True)
    return distinct, np.bincount(places), np.bincount(places[marked], minlength=len(distinct))


def auroc(known: NDArray[Any], unknown: NDArray[Any]) -> float:
    """Return the probability that a known car scores higher than an unknown one; a tie counts half."""
    _, knowns, unknowns = _counts(known, unknown)
    below = np.cumsum(unknowns) - unknowns / 2
    return float((knowns * below).sum() / (len(known) * len(unknown)))


def roc(known: NDArray[Any], unknown: NDArray[Any]) -> list[ThresholdRates]:
    """Return the ROC curve: the rates for each distinct score as a threshold, highest first."""
    values, knowns, unknowns = _counts(known, unknown)
    tpr, fpr = (np.cumsum(counts[::-1]) / counts.sum() for counts in (knowns, unknowns))
    return [ThresholdRates(*rates) for rates in zip(values[::-1].tolist(), tpr.tolist(), fpr.tolist(), strict=True)]


def fpr_at_tpr(known: NDArray[Any], unknown: NDArray[Any], tpr: float = TPR) -> float:
    """Return the share of unknown cars that the highest threshold accepts which accepts `tpr` of the known cars."""
    # Rounding may put tpr * n just above the whole number that it stands for.
    accepted = max(1, int(np.ceil(tpr * len(known) - 1e-9)))
    threshold = np.partition(known, len(known) - accepted)[len(known) - accepted]
    return float(np.mean(unknown >= threshold))


def _counts(known: NDArray[Any], unknown: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct scores, ascending, and how many known and how many unknown cars have each."""
    scores = np.concatenate([known, unknown])
    values, total, knowns = _by_value(scores, np.arange(len(scores)) < len(known))
    return values, knowns, total - knowns
