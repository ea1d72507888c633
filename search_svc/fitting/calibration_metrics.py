"""Figures of confidence and of detection, in their usual definitions; arrays in, numbers out.

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
    """Photos whose confidence is above `low`, and `high` at most; the first bin holds 0 too."""

    low: float
    high: float
    photos: int
    confidence: float
    """Mean."""
    right: float
    """Share."""


@dataclass(frozen=True)
class Selected:
    """What is left if only answers of this confidence or more are taken."""

    confidence: float
    coverage: float
    """Share of photos that are answered."""
    risk: float
    """Share of those that are wrong."""


@dataclass(frozen=True)
class Rates:
    """What a threshold accepts: scores equal to it, or above."""

    threshold: float
    tpr: float
    """Share of known cars that are accepted."""
    fpr: float
    """Share of unknown ones that are."""


def reliability(confidence: NDArray[Any], right: NDArray[np.bool_]) -> list[Bin]:
    """The bins that hold any photo, in order; of width 1/15 each."""
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
    """Expected calibration error: how far confidence is from accuracy, averaged over bins by their photos."""
    gaps = np.bincount(_bins(confidence), np.asarray(confidence, np.float64) - right, BINS)
    return float(np.abs(gaps).sum() / len(right))


def _bins(confidence: NDArray[Any]) -> NDArray[np.int64]:
    return np.clip(np.ceil(np.asarray(confidence, np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)


def risk_coverage(confidence: NDArray[Any], right: NDArray[np.bool_]) -> list[Selected]:
    """A point for each confidence that was given, highest first; the last covers everything."""
    values, photos, wrong = _by_value(confidence, ~right)
    taken, mistakes = np.cumsum(photos[::-1]), np.cumsum(wrong[::-1])
    points = zip(values[::-1].tolist(), (taken / len(right)).tolist(), (mistakes / taken).tolist(), strict=True)
    return [Selected(*point) for point in points]


def aurc(confidence: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Area under the risk-coverage curve: the mean risk of the 1, 2, ... n most confident answers.

    Answers of one confidence have no order: each counts as wrong as all of them are on average, which is what a random
    order gives on average.
    """
    _, photos, wrong = _by_value(confidence, ~right)
    mistakes = np.cumsum(np.repeat((wrong / photos)[::-1], photos[::-1]))
    return float(np.mean(mistakes / np.arange(1, len(right) + 1)))


def _by_value(
    values: NDArray[Any], marked: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct values in rising order; how many there are of each, and how many of those are marked."""
    distinct, places = np.unique(values, return_inverse=True)
    return distinct, np.bincount(places), np.bincount(places[marked], minlength=len(distinct))


def auroc(known: NDArray[Any], unknown: NDArray[Any]) -> float:
    """The probability that a known car scores higher than an unknown one; a tie is half."""
    _, knowns, unknowns = _both(known, unknown)
    below = np.cumsum(unknowns) - unknowns / 2
    return float((knowns * below).sum() / (len(known) * len(unknown)))


def roc(known: NDArray[Any], unknown: NDArray[Any]) -> list[Rates]:
    """The rates of each score as a threshold, highest first."""
    values, knowns, unknowns = _both(known, unknown)
    tpr, fpr = (np.cumsum(counts[::-1]) / counts.sum() for counts in (knowns, unknowns))
    return [Rates(*rates) for rates in zip(values[::-1].tolist(), tpr.tolist(), fpr.tolist(), strict=True)]


def fpr_at_tpr(known: NDArray[Any], unknown: NDArray[Any], tpr: float = TPR) -> float:
    """The share of unknown cars that are accepted by the highest threshold that accepts `tpr` of the known ones."""
    # TPR * n may come out a rounding error above the whole number that it is.
    accepted = max(1, int(np.ceil(tpr * len(known) - 1e-9)))
    threshold = np.partition(known, len(known) - accepted)[len(known) - accepted]
    return float(np.mean(unknown >= threshold))


def _both(known: NDArray[Any], unknown: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    scores = np.concatenate([known, unknown])
    values, total, knowns = _by_value(scores, np.arange(len(scores)) < len(known))
    return values, knowns, total - knowns
