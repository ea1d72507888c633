"""Where answers are wrong: by make, by pair of labels, and photo by photo.

All figures are of photos of known labels, except those of `intruders`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_svc.evaluation.accuracy import VOTE
from search_svc.evaluation.examiner import ExaminedPhoto
from search_svc.evaluation.resampling import Estimate, share
from search_svc.index.items import Items
from search_svc.voting.answer import VerdictName
from search_svc.voting.vote import LEVELS, path

PAIRS = 25
WORST = 25


@dataclass(frozen=True)
class Make:
    """How often the photos of one make are recognised."""

    make: str
    photos: int
    labels: int
    """The number of distinct labels among the photos."""
    label: Estimate
    """The share of the photos whose label is recognised; `model` and `make_right` are those whose model, or make, is."""
    model: float
    make_right: float


@dataclass(frozen=True)
class Pair:
    """Two labels, and how often one was taken for the other."""

    one: str
    other: str
    one_for_other: int
    """How many photos of `one` got the answer `other`."""
    other_for_one: int
    one_photos: int
    """How many photos of `one` there are."""
    other_photos: int


@dataclass(frozen=True)
class Mistake:
    """A photo, and the label that it was taken for."""

    item: str
    label: str
    answer: str
    confidence: float
    """The confidence in the answer's label."""
    verdict: VerdictName | None
    nearest_item: str
    """The item id of the gallery's nearest photo."""
    nearest_label: str


def makes(photos: Sequence[ExaminedPhoto], seed: int) -> list[Make]:
    """Return the figures of each make, those with the most photos first."""
    of_make = defaultdict(list)
    for photo in photos:
        of_make[path(photo.truth)[0]].append(photo)
    ranked = sorted(of_make.items(), key=lambda each: (-len(each[1]), each[0]))
    return [_make(make, members, seed) for make, members in ranked]


def confused(photos: Sequence[ExaminedPhoto]) -> list[Pair]:
    """Return the pairs of labels that were taken for each other most often, counting both ways."""
    total = Counter(photo.truth.label for photo in photos)
    taken = Counter((photo.truth.label, _answer(photo)) for photo in wrong(photos))
    pairs = {(one, other) if one < other else (other, one) for one, other in taken}
    ranked = sorted(pairs, key=lambda pair: (-taken[pair] - taken[pair[::-1]], pair))
    return [
        Pair(one, other, taken[one, other], taken[other, one], total[one], total[other])
        for one, other in ranked[:PAIRS]
    ]


def wrong(photos: Sequence[ExaminedPhoto]) -> list[ExaminedPhoto]:
    """Return the photos that got an answer of another label than theirs."""
    return [photo for photo in photos if photo.answer and not photo.right["label", VOTE]]


def worst(photos: Sequence[ExaminedPhoto], items: Items) -> list[Mistake]:
    """Return the most confident answers of the photos, all of which count as mistakes, the most confident first."""
    answered = [photo for photo in photos if photo.answer and photo.found.rows]
    ranked = sorted(answered, key=lambda photo: (-_confidence(photo), photo.item))
    return [_mistake(photo, items) for photo in ranked[:WORST]]


def intruders(photos: Sequence[ExaminedPhoto], items: Items) -> list[Mistake]:
    """Return those of the photos, which the gallery does not know, that passed as known; the most confident first."""
    return worst([photo for photo in photos if photo.answer and photo.answer.verdict != "unknown"], items)


def _make(make: str, photos: Sequence[ExaminedPhoto], seed: int) -> Make:
    right = {level: np.array([photo.right[level, VOTE] for photo in photos]) for level in LEVELS}
    labels = len({photo.truth.label for photo in photos})
    return Make(
        make,
        len(photos),
        labels,
        share(right["label"], seed),
        float(right["model"].mean()),
        float(right["make"].mean()),
    )


def _mistake(photo: ExaminedPhoto, items: Items) -> Mistake:
    found, answer = photo.found, photo.answer
    nearest = items.item_id(found.rows[0])
    verdict = answer.verdict if answer else None
    return Mistake(
        photo.item, photo.truth.label, _answer(photo), _confidence(photo), verdict, nearest, found.labels[0].label
    )


def _answer(photo: ExaminedPhoto) -> str:
    return photo.answer.vote.answer.label if photo.answer else ""


def _confidence(photo: ExaminedPhoto) -> float:
    return photo.answer.label_confidence if photo.answer else 0.0
