"""Accuracy: how often the neighbours of a photo, and the answer that is made of them, are right.

Each measure is taken at four levels: the whole label, the model (with its make), the make, and the year alone.

- *nearest, top-1*: the nearest photo is right; *top-5 images*: one of the five nearest photos is. These are the
  definitions of the blog post "Building a Car Model Classifier, Part 1".
- *nearest, top-5 classes*: one of the five nearest distinct classes is right, however many photos apart they are.
- *vote, top-1*: the answer is right; *top-5 classes*: it, or one of the four heaviest candidates beside it, is.
- *vote, within years*: the answer's range of years holds the year; of the label, also its model is right.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_svc.evaluation.resampling import share
from search_svc.voting.answer import Answer
from search_svc.voting.labels import Label
from search_svc.voting.vote import Vote, path

TOP = 5

CLASSES: dict[str, Callable[[Label], Hashable]] = {
    "label": lambda label: label.label,
    "model": lambda label: path(label)[:2],
    "make": lambda label: path(label)[:1],
    "year": lambda label: label.year,
}
"""The class of a label at each level. Photos whose label has none at a level (None) are not counted there."""

NEAREST, VOTE, WITHIN = "nearest, top-1", "vote, top-1", "vote, within years"

MEASURES = (NEAREST, "nearest, top-5 images", "nearest, top-5 classes", VOTE, "vote, top-5 classes", WITHIN)

RECALL_AT = (1, 2, 4, 8)

Outcomes = Mapping[tuple[str, str], bool]
"""Whether a photo was recognised, by (level, measure)."""


@dataclass(frozen=True)
class Score:
    """The share of photos that are right at a level by a measure, with its 95 % interval."""

    level: str
    measure: str
    photos: int
    value: float
    low: float
    high: float


def outcomes(truth: Label, nearest: Sequence[Label], answer: Answer | None) -> Outcomes:
    """Return whether one photo is recognised, at each level that its label has, by each measure.

    `nearest` are the labels of its neighbours, nearest first, reaching far enough for five classes at every level.
    """
    right: dict[tuple[str, str], bool] = {}
    for level, class_of in CLASSES.items():
        if (wanted := class_of(truth)) is not None:
            right |= {(level, name): wanted in given for name, given in _given(nearest, answer, level).items()}
    if truth.year is not None:
        right |= {("label", WITHIN): model_within_years(truth, answer), ("year", WITHIN): within_years(truth, answer)}
    return right


def recalls(truth: Label, nearest: Sequence[Label]) -> dict[int, bool]:
    """Return, for each K of RECALL_AT, whether one of the K nearest photos has the label (Recall@K)."""
    return {k: any(label.label == truth.label for label in nearest[:k]) for k in RECALL_AT}


def scores(photos: Sequence[Outcomes], seed: int) -> list[Score]:
    """Return the scores by level and measure, without the levels that no photo has."""
    return [
        Score(level, measure, len(right), *_parts(right, seed))
        for level in CLASSES
        for measure in MEASURES
        if (right := [photo[level, measure] for photo in photos if (level, measure) in photo])
    ]


def distinct(labels: Iterable[Label], level: str) -> list[Hashable]:
    """Return the first five distinct classes of the labels at a level."""
    classes = dict.fromkeys(map(CLASSES[level], labels))
    return [each for each in classes if each is not None][:TOP]


def within_years(truth: Label, answer: Answer | None) -> bool:
    """Return whether the answer's range of years holds the true year."""
    if answer is None or answer.years is None or truth.year is None:
        return False
    first, last = answer.years
    return first <= truth.year <= last


def model_within_years(truth: Label, answer: Answer | None) -> bool:
    """Return whether make and model are right, and the answer's range of years holds the true year."""
    return within_years(truth, answer) and answer is not None and path(answer.vote.answer)[:2] == path(truth)[:2]


def _given(nearest: Sequence[Label], answer: Answer | None, level: str) -> dict[str, Sequence[Hashable]]:
    """Return, for each measure, the classes one of which must be right."""
    images = [CLASSES[level](label) for label in nearest[:TOP]]
    voted = _voted(answer.vote, level) if answer else []
    given = (images[:1], images, distinct(nearest, level), voted[:1], voted[:TOP])
    return dict(zip(MEASURES, given, strict=False))


def _voted(vote: Vote, level: str) -> list[Hashable]:
    """Return the class of the answer (maybe None), then the classes of the other candidates, heaviest first."""
    heaviest: list[Hashable]
    if level == "make":
        heaviest = [(candidate.make,) for candidate in vote.makes]
    elif level == "model":
        heaviest = [(candidate.make, candidate.model) for candidate in vote.models]
    else:
        heaviest = [CLASSES[level](candidate.label) for candidate in vote.labels if candidate.label]
    answer = CLASSES[level](vote.answer)
    return [answer, *dict.fromkeys(each for each in heaviest if each not in (answer, None))]


def _parts(right: Sequence[bool], seed: int) -> tuple[float, float, float]:
    found = share(np.array(right), seed)
    return found.value, found.low, found.high
