"""Enrolment: what becomes of cars that neither gallery nor network know when a few photos of each are added to the gallery.

Of each new label n photos are drawn and added, as `AddItems` adds them, in memory: the index stays as it is. The label's other
photos are asked for among all labels, by the code that serves, and so are the photos of known cars, to see what they lose.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.photo_list import Photo
from search_svc.evaluation.resampling import Estimate, mean, paired_difference
from search_svc.index.journal import Entry, StoredItem
from search_svc.live.delta import Delta
from search_svc.live.view import Opened, View
from search_svc.serving.queries import Plan, Query
from search_svc.serving.searcher import Searcher, SearchOutcome
from search_svc.voting.answer import Answer, Answerer
from svckit.cli import CommandError

DRAWS = 5
"""How many times the photos to add are drawn anew."""
_BATCH = 64

Progress = Callable[[int], None]
"""Is called with the number of photos that were asked for since the last call."""


@dataclass(frozen=True)
class Photos:
    """Photos with their embeddings, row by row."""

    photos: Sequence[Photo]
    vectors: NDArray[np.float32]
    """(N, dimension)"""


@dataclass(frozen=True)
class EnrolledLabel:
    """One of the labels that were enrolled."""

    label: str
    asked: int
    """How many different photos of it were asked for."""
    right: float
    """The share of its photos that got its label."""
    called_unknown: float | None


@dataclass(frozen=True)
class Enrolment:
    """The answers for new labels after `enrolled` photos of each were added; labels with no more photos than that take no part.

    A photo counts by the mean over the draws in which it was asked for; photos are drawn for the intervals.
    """

    enrolled: int
    draws: int
    labels: int
    photos: int
    """How many different photos of them were asked for."""
    right: Estimate
    """The share of the new labels' photos that got their label."""
    called_unknown_before: Estimate | None
    """The share of them with the verdict `unknown` while nothing of theirs was in the gallery; None if the index is not calibrated."""
    called_unknown: Estimate | None
    """The share of them with the verdict `unknown` after the photos were added; None if the index is not calibrated."""
    known: int
    """How many photos of known labels were asked for."""
    known_right: Estimate | None
    """The share of them that got their label after the new ones were added; None if none was asked for."""
    known_lost: Estimate | None
    """By how much that share fell."""
    of_label: list[EnrolledLabel]


class Enroller:
    """Asks for photos before and after some of them were added to a gallery."""

    def __init__(self, opened: Opened, known: Photos, new: Photos, *, seed: int, asked: Progress) -> None:
        """The labels of `new` are not in the gallery; those of `known` are. No photo is in the gallery itself."""
        self._opened = opened
        self._known = known
        self._new = new
        self._seed = seed
        self._asked = asked
        self._known_before = self._marks(View(opened), known)
        self._new_before = self._marks(View(opened), new)

    def enrol(self, count: int) -> Enrolment:
        """Add `count` photos of each label that has more, several times. Raise CommandError if none has."""
        rows_of = {label: rows for label, rows in _rows_of(self._new.photos).items() if len(rows) > count}
        if not rows_of:
            raise CommandError(f"--enrol {count}: no label that the index lacks has more than {count} photos")
        draws = [self._draw(rows_of, count, draw) for draw in range(DRAWS)]
        return self._summary(count, rows_of, draws)

    def _draw(self, rows_of: Mapping[str, NDArray[np.int64]], count: int, draw: int) -> "_Draw":
        rng = np.random.default_rng((self._seed, count, draw))
        shuffled = [rng.permutation(rows) for rows in rows_of.values()]
        added = np.concatenate([rows[:count] for rows in shuffled])
        asked = np.sort(np.concatenate([rows[count:] for rows in shuffled]))
        view = self._with(added)
        new = Photos([self._new.photos[row] for row in asked.tolist()], self._new.vectors[asked])
        return _Draw(asked, self._marks(view, new), self._marks(view, self._known))

    def _with(self, rows: NDArray[np.int64]) -> View:
        """Return a view of the gallery with these photos in it."""
        delta = Delta(self._opened.version)
        for sequence, row in enumerate(rows.tolist(), start=1):
            photo, embedding = self._new.photos[row], self._new.vectors[row].astype("<f2").tobytes()
            # An id of its own: a photo of another collection may have the path of one in the gallery.
            delta.write(Entry(sequence, f"enrolled {row}", StoredItem(photo.label.label, "", "", {}, embedding)))
        return View(self._opened, delta.snapshot(), len(rows))

    def _marks(self, view: View, photos: Photos) -> "_Marks":
        """Ask for all photos, and return which were right and which were called unknown."""
        answers = [
            answer for start in range(0, len(photos.photos), _BATCH) for answer in self._answers(view, photos, start)
        ]
        pairs = list(zip(answers, photos.photos, strict=True))
        right = [answer is not None and answer.vote.answer.label == photo.label.label for answer, photo in pairs]
        unknown = [answer is None or answer.verdict == "unknown" for answer in answers]
        return _Marks(np.array(right, np.float64), np.array(unknown, np.float64))

    def _answers(self, view: View, photos: Photos, start: int) -> list[Answer | None]:
        manifest, answerer = view.manifest, Answerer(view)
        plan = Plan(manifest.k, manifest.search, exact=False)
        vectors = photos.vectors[start : start + _BATCH]
        found = [_whole(each) for each in Searcher(lambda: view).run([Query(vector, plan) for vector in vectors])]
        self._asked(len(vectors))
        pairs = zip(found, photos.photos[start : start + _BATCH], strict=True)
        return [answerer.answer([replace(each.neighbours, no_car_found=photo.no_car_found)]) for each, photo in pairs]

    def _summary(self, count: int, rows_of: Mapping[str, NDArray[np.int64]], draws: Sequence["_Draw"]) -> Enrolment:
        right, unknown = self._mean(draws, "right"), self._mean(draws, "unknown")
        asked = np.flatnonzero(~np.isnan(right))
        before, known = self._new_before, np.mean([draw.known.right for draw in draws], axis=0)
        calibrated = self._opened.version.calibration is not None
        return Enrolment(
            enrolled=count,
            draws=DRAWS,
            labels=len(rows_of),
            photos=len(asked),
            right=mean(right[asked], self._seed),
            called_unknown_before=mean(before.unknown[asked], self._seed) if calibrated else None,
            called_unknown=mean(unknown[asked], self._seed) if calibrated else None,
            known=len(known),
            known_right=mean(known, self._seed) if len(known) else None,
            known_lost=paired_difference(self._known_before.right, known, self._seed) if len(known) else None,
            of_label=[
                EnrolledLabel(
                    label, len(kept), float(right[kept].mean()), float(unknown[kept].mean()) if calibrated else None
                )
                for label, rows in rows_of.items()
                for kept in [np.intersect1d(rows, asked)]
            ],
        )

    def _mean(self, draws: Sequence["_Draw"], name: str) -> NDArray[np.float64]:
        """Return the mean over draws of each new photo's mark, not a number where it was never asked for. (new photos,)"""
        sums, counts = np.zeros(len(self._new.photos)), np.zeros(len(self._new.photos))
        for draw in draws:
            sums[draw.asked] += getattr(draw.new, name)
            counts[draw.asked] += 1
        means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
        return means


@dataclass(frozen=True)
class _Marks:
    """1 for photos of which it is so, else 0. (photos,) each."""

    right: NDArray[np.float64]
    unknown: NDArray[np.float64]


@dataclass(frozen=True)
class _Draw:
    asked: NDArray[np.int64]
    """The rows of the new photos that were not added."""
    new: _Marks
    """The marks of the photos in `asked`."""
    known: _Marks


def _rows_of(photos: Sequence[Photo]) -> dict[str, NDArray[np.int64]]:
    rows = defaultdict(list)
    for row, photo in enumerate(photos):
        rows[photo.label.label].append(row)
    return {label: np.array(each) for label, each in sorted(rows.items())}


def _whole(found: SearchOutcome | Exception) -> SearchOutcome:
    if isinstance(found, Exception):
        raise found
    return found
