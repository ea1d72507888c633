"""Accuracy: how often the neighbours of a photo, and their vote, say what it shows.

Each measure is taken at four levels: the whole label, the model (with its make), the make, and the year alone.

- *nearest, top-1*: the nearest photo is right; *top-5 images*: one of the five nearest photos is. These are the
  definitions of the blog post "Building a Car Model Classifier, Part 1".
- *nearest, top-5 classes*: one of the five nearest distinct classes is right, however many photos apart they are.
- *vote, top-1*: the answer is right; *top-5 classes*: it, or one of the four heaviest candidates beside it, is.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from search_svc.labels import Label
from search_svc.vote import Vote, path

TOP = 5

LEVELS: dict[str, Callable[[Label], Hashable]] = {
    "label": lambda label: label.label,
    "model": lambda label: path(label)[:2],
    "make": lambda label: path(label)[:1],
    "year": lambda label: label.year,
}
"""The class of a label at each level; None if it has none there, and then its photos are not counted."""

MEASURES = (
    "nearest, top-1",
    "nearest, top-5 images",
    "nearest, top-5 classes",
    "vote, top-1",
    "vote, top-5 classes",
)

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Answer:
    """What is known of one photo."""

    neighbours: Sequence[Label]
    """As many as the index finds by default, or five; nearest first."""
    classes: Sequence[Label]
    """Enough neighbours, nearest first, for five classes at every level, if there are so many."""
    vote: Vote | None


@dataclass(frozen=True)
class Score:
    """A share of photos, with a 95 % bootstrap interval over photos."""

    level: str
    measure: str
    photos: int
    value: float
    low: float
    high: float


class Tally:
    """Counts right answers."""

    def __init__(self) -> None:
        self._photos: Counter[str] = Counter()
        self._right: Counter[tuple[str, str]] = Counter()

    def add(self, truth: Label, answer: Answer) -> None:
        for level, class_of in LEVELS.items():
            wanted = class_of(truth)
            if wanted is None:
                continue
            self._photos[level] += 1
            for measure, given in _given(answer, level).items():
                self._right[level, measure] += wanted in given

    def scores(self, seed: int) -> list[Score]:
        """By level and measure; of levels that no photo has, none."""
        rng = np.random.default_rng(seed)
        return [
            Score(level, measure, photos, *_interval(self._right[level, measure], photos, rng))
            for level, photos in self._photos.items()
            for measure in MEASURES
        ]


def distinct(labels: Iterable[Label], level: str) -> list[Hashable]:
    """The first five classes that labels have at a level."""
    classes = dict.fromkeys(map(LEVELS[level], labels))
    return [each for each in classes if each is not None][:TOP]


def _given(answer: Answer, level: str) -> dict[str, Sequence[Hashable]]:
    """For each measure, the classes of which one must be right."""
    nearest = [LEVELS[level](label) for label in answer.neighbours[:TOP]]
    voted = _voted(answer.vote, level) if answer.vote else []
    given = (nearest[:1], nearest, distinct(answer.classes, level), voted[:1], voted[:TOP])
    return dict(zip(MEASURES, given, strict=True))


def _voted(vote: Vote, level: str) -> list[Hashable]:
    """The answer's class, which may be none, then the other candidates', heaviest first."""
    heaviest: list[Hashable]
    if level == "make":
        heaviest = [(candidate.make,) for candidate in vote.makes]
    elif level == "model":
        heaviest = [(candidate.make, candidate.model) for candidate in vote.models]
    else:
        heaviest = [LEVELS[level](candidate.label) for candidate in vote.labels if candidate.label]
    answer = LEVELS[level](vote.answer)
    return [answer, *dict.fromkeys(each for each in heaviest if each not in (answer, None))]


def _interval(right: int, photos: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """The share, and its interval by the percentile bootstrap (Efron 1979)."""
    # Of n photos drawn again with replacement, the number of right ones is binomial: there is no need to draw them.
    low, high = np.percentile(rng.binomial(photos, right / photos, _RESAMPLES), (2.5, 97.5)) / photos
    return right / photos, float(low), float(high)
