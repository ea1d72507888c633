"""The worth of confidences: reliability before and after calibration, and the answers that are left above a cut.

All figures are of single photos of known labels. At the level `years` an answer is right if its model is, and its range of
years holds the photo's year.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.evaluation.accuracy import CLASSES, VOTE, WITHIN
from search_svc.evaluation.examiner import ExaminedPhoto
from search_svc.evaluation.resampling import COSTLY_RESAMPLES, Estimate, estimate, resampled, resampled_gap, share
from search_svc.fitting.calibration_metrics import Bin, RiskAtCoverage, aurc, ece, reliability, risk_coverage
from search_svc.voting.answer import Answer
from search_svc.voting.vote import path
from search_svc.voting.years import shares_by_year

CUTS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""The confidences in the table that advises where to cut."""

_POINTS = 200
"""The most points that a curve is drawn with; more can't be seen."""


@dataclass(frozen=True)
class Reliability:
    ece: Estimate
    by_chance: Estimate
    """The ECE that the same confidences would have on average if they were exactly right, and where 95 % of such ECEs lie."""
    bins: list[Bin]


@dataclass(frozen=True)
class Cut:
    """The effect of taking only answers of this confidence or more."""

    confidence: float
    covers: float
    """The share of the photos whose answers are taken."""
    right: Estimate | None
    """The share of the taken answers that are right; None if none is taken."""
    unknown: float | None
    """The share of photos of unknown cars whose answers are taken; None if there are no such photos."""


@dataclass(frozen=True)
class Confidence:
    """The worth of the confidences of one level: label, model, make or years."""

    level: str
    photos: int
    shares: Reliability
    """The reliability of the shares of the vote, not calibrated."""
    calibrated: Reliability | None
    """The reliability of the calibrated confidences; None if the index is not calibrated."""
    aurc: Estimate
    curve: list[RiskAtCoverage]
    """The risk-coverage curve of the confidences that a caller gets."""
    cuts: list[Cut]


def _share_of_years(answer: Answer) -> float:
    """Return the share of the vote that the labels within the answer's range of years have together."""
    vote = answer.vote
    if answer.years is None:
        return vote.label_confidence
    first, last = answer.years
    shares = shares_by_year(vote, path(vote.answer)[:2])
    return sum(share for year, share in shares.items() if first <= year <= last)


_Value = Callable[[Answer], float]

_GIVEN: dict[str, _Value] = {
    "label": lambda answer: answer.label_confidence,
    "model": lambda answer: answer.model_confidence,
    "make": lambda answer: answer.make_confidence,
    "years": lambda answer: answer.years_confidence,
}

_SHARES: dict[str, _Value] = {
    "label": lambda answer: answer.vote.label_confidence,
    "model": lambda answer: answer.vote.model_confidence,
    "make": lambda answer: answer.vote.make_confidence,
    "years": _share_of_years,
}


def confidences(
    known: Sequence[ExaminedPhoto], unknown: Sequence[ExaminedPhoto], *, calibrated: bool, seed: int
) -> list[Confidence]:
    """Return the figures by level, without the levels that no photo has."""
    return [
        _confidence(level, judged, unknown, calibrated=calibrated, seed=seed)
        for level in _GIVEN
        if (judged := [photo for photo in known if _outcome(level) in photo.right])
    ]


def values(photos: Sequence[ExaminedPhoto], value: _Value) -> NDArray[np.float64]:
    """Return the value of each photo's answer; 0 for photos without an answer."""
    # Sums of shares may come out a rounding error above 1.
    return np.array([min(value(photo.answer), 1.0) if photo.answer else 0.0 for photo in photos])


def _outcome(level: str) -> tuple[str, str]:
    return (level, VOTE) if level in CLASSES else ("label", WITHIN)


def _confidence(
    level: str, photos: Sequence[ExaminedPhoto], unknown: Sequence[ExaminedPhoto], *, calibrated: bool, seed: int
) -> Confidence:
    right = np.array([photo.right[_outcome(level)] for photo in photos])
    given, shares = values(photos, _GIVEN[level]), values(photos, _SHARES[level])
    strangers = values(unknown, _GIVEN[level])
    return Confidence(
        level,
        len(photos),
        _reliability(shares, right, seed),
        _reliability(given, right, seed) if calibrated else None,
        resampled(_of_pairs(aurc), _pairs(given, right), seed=seed),
        thinned(risk_coverage(given, right)),
        [_cut(cut, given, right, strangers, seed) for cut in CUTS],
    )


def _reliability(confidence: NDArray[Any], right: NDArray[np.bool_], seed: int) -> Reliability:
    error = resampled_gap(_of_pairs(ece), _pairs(confidence, right), seed)
    return Reliability(error, chance_ece(confidence, seed), reliability(confidence, right))


def chance_ece(confidence: NDArray[Any], seed: int) -> Estimate:
    """Estimate the ECE that chance alone gives: of answers that are right with the very probability that they state."""
    rng = np.random.default_rng(seed)
    drawn = np.array([ece(confidence, rng.random(len(confidence)) < confidence) for _ in range(COSTLY_RESAMPLES)])
    return estimate(float(drawn.mean()), drawn)


def _pairs(confidence: NDArray[Any], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (photos, 2): a photo is drawn together with its confidence and with whether it is right."""
    return np.stack([confidence, right], axis=1)


def _of_pairs(figure: Callable[[NDArray[Any], NDArray[np.bool_]], float]) -> Callable[[NDArray[Any]], float]:
    """Return the figure as a function of `_pairs`."""
    return lambda pairs: figure(pairs[:, 0], pairs[:, 1] > 0.5)


def _cut(cut: float, confidence: NDArray[Any], right: NDArray[np.bool_], strangers: NDArray[Any], seed: int) -> Cut:
    taken = confidence >= cut
    passing = float(np.mean(strangers >= cut)) if len(strangers) else None
    return Cut(cut, float(taken.mean()), share(right[taken], seed) if taken.any() else None, passing)


def thinned(points: Sequence[Any]) -> list[Any]:
    """Return the points, or an even selection of them if there are many; the first and the last are always in it."""
    if len(points) <= _POINTS:
        return list(points)
    return [points[place] for place in np.linspace(0, len(points) - 1, _POINTS).round().astype(int).tolist()]
