"""Unknown cars: how well scores tell photos of labels that the gallery lacks, or of no car, from those it knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.evaluation.examiner import Examined
from search_svc.evaluation.report.confidence import thinned
from search_svc.evaluation.resampling import Estimate, resampled, share
from search_svc.fitting.calibration_metrics import auroc, fpr_at_tpr, roc

VERDICT_SCORE = "combined"
"""The name of the score that the verdict compares with its threshold, where the index is calibrated."""

_COLUMNS = 30


@dataclass(frozen=True)
class Point:
    """Of a ROC: share of unknown and of known photos that one threshold accepts."""

    fpr: float
    tpr: float


@dataclass(frozen=True)
class Detector:
    """A score, as a detector of known cars."""

    score: str
    auroc: Estimate
    fpr95: Estimate
    roc: list[Point]


@dataclass(frozen=True)
class Detection:
    """One kind of photos that the gallery does not know, against those that it knows."""

    kind: str
    photos: int
    labels: int
    """Distinct ones."""
    detectors: list[Detector]
    called_unknown: Estimate | None
    """Share of the photos with the verdict `unknown`; None if the index is not calibrated."""


@dataclass(frozen=True)
class Distribution:
    """How often a score falls between two edges, as a share of the photos of each kind."""

    score: str
    edges: list[float]
    """One more than columns."""
    columns: dict[str, list[float]]
    """By kind of photo."""
    threshold: float | None
    """Below it the verdict is `unknown`."""


KNOWN = "labels of the gallery"
UNKNOWN = "labels that the gallery lacks"
NOT_CARS = "no cars"

Kinds = dict[str, Sequence[Examined]]
"""Photos of unknown kinds; only the kinds that were asked for."""


def detections(known: Sequence[Examined], kinds: Kinds, seed: int) -> list[Detection]:
    return [
        Detection(
            kind,
            len(photos),
            len({photo.truth.label for photo in photos}),
            [_detector(name, known, photos, seed) for name in score_names([*known, *photos])],
            called_unknown(photos, seed),
        )
        for kind, photos in kinds.items()
    ]


def called_unknown(photos: Sequence[Examined], seed: int) -> Estimate | None:
    """Share of photos with the verdict `unknown`; None if answers have no verdicts."""
    if all(photo.answer is None or photo.answer.verdict is None for photo in photos):
        return None
    return share(np.array([photo.answer is None or photo.answer.verdict == "unknown" for photo in photos]), seed)


def distribution(known: Sequence[Examined], kinds: Kinds, threshold: float | None) -> Distribution | None:
    """Of the first score, the verdict's if there is one; None if there is no unknown photo, or no score."""
    groups = {KNOWN: known, **kinds}
    names = score_names([photo for photos in groups.values() for photo in photos])
    if not kinds or not names:
        return None
    columns = {kind: scores_of(photos, names[0]) for kind, photos in groups.items()}
    finite = np.concatenate(list(columns.values()))
    finite = finite[np.isfinite(finite)]
    edges = np.histogram_bin_edges(finite, _COLUMNS)
    shares = {kind: _shares(scores, edges) for kind, scores in columns.items()}
    return Distribution(names[0], edges.tolist(), shares, threshold if names[0] == VERDICT_SCORE else None)


def score_names(photos: Sequence[Examined]) -> list[str]:
    """The verdict's score first, if there is one."""
    named = dict.fromkeys(name for photo in photos for name in photo.known_scores)
    return sorted(named, key=lambda name: name != VERDICT_SCORE)


def scores_of(photos: Sequence[Examined], name: str) -> NDArray[np.float64]:
    """Of each photo; minus infinity for one near which nothing was found."""
    return np.array([photo.known_scores.get(name, -np.inf) for photo in photos], np.float64)


def _detector(name: str, known: Sequence[Examined], unknown: Sequence[Examined], seed: int) -> Detector:
    ours, others = scores_of(known, name), scores_of(unknown, name)
    points = [Point(0.0, 0.0), *(Point(rates.fpr, rates.tpr) for rates in roc(ours, others))]
    return Detector(
        name,
        resampled(auroc, ours, others, seed=seed),
        resampled(fpr_at_tpr, ours, others, seed=seed),
        thinned(points),
    )


def _shares(scores: NDArray[Any], edges: NDArray[Any]) -> list[float]:
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    return [count / len(scores) for count in counts.tolist()]
