"""What confidences are worth: reliability before and after calibration, and what is left above a cut.

Of photos of known labels, one by one. The confidence of `years` is of the model, and of a range of years that holds the
photo's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.evaluation.accuracy import LEVELS, VOTE, WITHIN
from search_svc.evaluation.examiner import Examined
from search_svc.evaluation.resampling import COSTLY_RESAMPLES, Estimate, estimate, resampled, resampled_gap, share
from search_svc.fitting.calibration_metrics import Bin, Selected, aurc, ece, reliability, risk_coverage
from search_svc.voting.answer import Answer
from search_svc.voting.vote import path

CUTS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Confidences of the table that advises where to cut."""

_POINTS = 200
"""Of a curve, at most; more can't be seen."""


@dataclass(frozen=True)
class Reliability:
    ece: Estimate
    by_chance: Estimate
    """The ECE that the same confidences have on average, if they are exactly right, and where 95 % of such ECEs lie."""
    bins: list[Bin]


@dataclass(frozen=True)
class Cut:
    """What is left if only answers of this confidence or more are taken."""

    confidence: float
    covers: float
    """Share of the photos."""
    right: Estimate | None
    """Share of those; None if there are none."""
    unknown: float | None
    """Share of the photos of unknown cars that pass too; None if there are no such photos."""


@dataclass(frozen=True)
class Confidence:
    """Of the answers' level."""

    level: str
    photos: int
    shares: Reliability
    """Of the vote, as they are."""
    calibrated: Reliability | None
    """None if the index is not calibrated."""
    aurc: Estimate
    curve: list[Selected]
    """Risk and coverage, of the confidences that a caller gets."""
    cuts: list[Cut]


def _share_of_years(answer: Answer) -> float:
    """The share of the vote of the labels that the answer's range of years stands for."""
    vote = answer.vote
    if answer.years is None:
        return vote.label_confidence
    first, last = answer.years
    of_model = [each for each in vote.labels if each.label and path(each.label)[:2] == path(vote.answer)[:2]]
    return sum(each.confidence for each in of_model if each.label and first <= (each.label.year or 0) <= last)


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
    known: Sequence[Examined], unknown: Sequence[Examined], *, calibrated: bool, seed: int
) -> list[Confidence]:
    """By level; of a level that no photo has, none."""
    return [
        _confidence(level, judged, unknown, calibrated=calibrated, seed=seed)
        for level in _GIVEN
        if (judged := [photo for photo in known if _outcome(level) in photo.right])
    ]


def values(photos: Sequence[Examined], value: _Value) -> NDArray[np.float64]:
    """Of each photo's answer; 0 where there is none."""
    # Sums of shares may come out a rounding error above 1.
    return np.array([min(value(photo.answer), 1.0) if photo.answer else 0.0 for photo in photos])


def _outcome(level: str) -> tuple[str, str]:
    return (level, VOTE) if level in LEVELS else ("label", WITHIN)


def _confidence(
    level: str, photos: Sequence[Examined], unknown: Sequence[Examined], *, calibrated: bool, seed: int
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
    """Of answers that are right with just the probability that they state."""
    rng = np.random.default_rng(seed)
    drawn = np.array([ece(confidence, rng.random(len(confidence)) < confidence) for _ in range(COSTLY_RESAMPLES)])
    return estimate(float(drawn.mean()), drawn)


def _pairs(confidence: NDArray[Any], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A photo a row: it is drawn with its confidence and with whether it is right."""
    return np.stack([confidence, right], axis=1)


def _of_pairs(figure: Callable[[NDArray[Any], NDArray[np.bool_]], float]) -> Callable[[NDArray[Any]], float]:
    return lambda pairs: figure(pairs[:, 0], pairs[:, 1] > 0.5)


def _cut(cut: float, confidence: NDArray[Any], right: NDArray[np.bool_], strangers: NDArray[Any], seed: int) -> Cut:
    taken = confidence >= cut
    passing = float(np.mean(strangers >= cut)) if len(strangers) else None
    return Cut(cut, float(taken.mean()), share(right[taken], seed) if taken.any() else None, passing)


def thinned(points: Sequence[Any]) -> list[Any]:
    """Some of many points, evenly, with the first and the last."""
    if len(points) <= _POINTS:
        return list(points)
    return [points[place] for place in np.linspace(0, len(points) - 1, _POINTS).round().astype(int).tolist()]
