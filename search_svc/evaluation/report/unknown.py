"""Unknown cars: how well scores tell photos of known labels from those of other labels, and of no car."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.evaluation.examiner import ExaminedPhoto
from search_svc.evaluation.report.confidence import thinned
from search_svc.evaluation.resampling import Estimate, resampled, share
from search_svc.fitting.calibration_metrics import auroc, fpr_at_tpr, roc

VERDICT_SCORE = "combined"
"""The score by which verdicts are given, if the index is calibrated."""

_COLUMNS = 30


@dataclass(frozen=True)
class RocPoint:
    """A point of a ROC curve: the shares of unknown and of known photos that one threshold accepts."""

    fpr: float
    tpr: float


@dataclass(frozen=True)
class Detector:
    """How well one score tells known cars from unknown ones."""

    score: str
    auroc: Estimate
    fpr95: Estimate
    roc: list[RocPoint]


@dataclass(frozen=True)
class Detection:
    """How well photos of one unknown kind are told from photos that the gallery knows."""

    kind: str
    photos: int
    labels: int
    """The number of distinct labels of the photos."""
    detectors: list[Detector]
    called_unknown: Estimate | None
    """The share of the photos with the verdict `unknown`; None if the index is not calibrated."""


@dataclass(frozen=True)
class Distribution:
    """A histogram of a score for each kind of photo."""

    score: str
    edges: list[float]
    """The edges of the columns, one more than there are columns."""
    columns: dict[str, list[float]]
    """The share of the photos in each column, by kind of photo."""
    threshold: float | None
    """The verdict is `unknown` below this score; None if the score is not that of the verdict."""


KNOWN = "labels of the gallery"
UNKNOWN = "labels that the gallery lacks"
NOT_CARS = "no cars"

Kinds = dict[str, Sequence[ExaminedPhoto]]
"""The photos of each unknown kind; kinds without photos are not in it."""


def detections(known: Sequence[ExaminedPhoto], kinds: Kinds, seed: int) -> list[Detection]:
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


def called_unknown(photos: Sequence[ExaminedPhoto], seed: int) -> Estimate | None:
    """Estimate the share of photos with the verdict `unknown`; return None if answers have no verdicts."""
    if all(photo.answer is None or photo.answer.verdict is None for photo in photos):
        return None
    return share(np.array([photo.answer is None or photo.answer.verdict == "unknown" for photo in photos]), seed)


def distribution(known: Sequence[ExaminedPhoto], kinds: Kinds, threshold: float | None) -> Distribution | None:
    """Return the histogram of the first score, which is the verdict's if there is one.

    Return None if there is no unknown photo, or no score.
    """
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


def score_names(photos: Sequence[ExaminedPhoto]) -> list[str]:
    """Return the names of the photos' scores, that of the verdict first."""
    named = dict.fromkeys(name for photo in photos for name in photo.known_scores)
    return sorted(named, key=lambda name: name != VERDICT_SCORE)


def scores_of(photos: Sequence[ExaminedPhoto], name: str) -> NDArray[np.float64]:
    """Return the score of each photo; -inf for photos without neighbours."""
    return np.array([photo.known_scores.get(name, -np.inf) for photo in photos], np.float64)


def _detector(name: str, known: Sequence[ExaminedPhoto], unknown: Sequence[ExaminedPhoto], seed: int) -> Detector:
    ours, others = scores_of(known, name), scores_of(unknown, name)
    points = [RocPoint(0.0, 0.0), *(RocPoint(rates.fpr, rates.tpr) for rates in roc(ours, others))]
    return Detector(
        name,
        resampled(auroc, ours, others, seed=seed),
        resampled(fpr_at_tpr, ours, others, seed=seed),
        thinned(points),
    )


def _shares(scores: NDArray[Any], edges: NDArray[Any]) -> list[float]:
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    return [count / len(scores) for count in counts.tolist()]
