"""The examples that a calibration is fitted to, made of held-out photos: cases of known cars, and strangers.

A case is the evidence of one or several photos of a label. A stranger is the evidence that a photo would have if the gallery
lacked its label, or its make.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_svc.fitting.held_out import LEAST_LABELS
from search_svc.fitting.trials import Trial
from search_svc.voting.evidence import Evidence, gather
from search_svc.voting.labels import Label
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import LEVELS, Weighting, path

FOLDS = LEAST_LABELS
GROUPS = (1, 2, 3, 4, 5)
"""Numbers of photos that are fused into one case, to learn what fused votes are worth."""


@dataclass(frozen=True)
class Case:
    """The evidence of one or several photos of a known label."""

    truth: Label
    evidence: Evidence

    def right(self, level: str) -> bool:
        """Return whether the answer is right at a level: label, model or make."""
        depth = LEVELS[level]
        return path(self.truth)[:depth] == path(self.evidence.vote.answer)[:depth]


def cases(
    trial: Trial, k: int, weighting: Weighting, rng: np.random.Generator, sizes: Sequence[int] = GROUPS
) -> list[list[Case]]:
    """Return, for each of the `sizes`, cases of so many photos of one label.

    For each size a label has as many cases as it has photos, less where the draw gave the same photos twice.
    """
    context = trial.context(weighting)
    photos_of: dict[Label, list[QueryNeighbours]] = defaultdict(list)
    for found, truth in zip(_nearest(trial, k), trial.neighbours.truth.tolist(), strict=True):
        photos_of[trial.labels[truth]].append(found)
    return [
        [
            Case(truth, evidence)
            for truth, photos in photos_of.items()
            for group in _groups(len(photos), size, rng)
            if (evidence := gather([photos[place] for place in group], context))
        ]
        for size in sizes
    ]


def _nearest(trial: Trial, k: int) -> list[QueryNeighbours]:
    """Return the k nearest neighbours of each photo."""
    photos, depth = trial.neighbours.scores.shape
    return trial.found(np.arange(photos), np.broadcast_to(np.arange(min(k, depth)), (photos, min(k, depth))))


def _groups(photos: int, size: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Draw distinct groups of `size` out of `photos` places, as many as there are photos or less."""
    if photos < size:
        return []
    if size == 1:
        return [(place,) for place in range(photos)]
    return sorted({tuple(sorted(rng.choice(photos, size, replace=False).tolist())) for _ in range(photos)})


def folds(singles: Sequence[Case], rng: np.random.Generator) -> dict[str, int]:
    """Divide the labels of cases into FOLDS parts for cross-validation, and return the part of each label."""
    names = sorted({case.truth.label for case in singles})
    return dict(zip(names, (rng.permutation(len(names)) % FOLDS).tolist(), strict=True))


def strangers(trial: Trial, k: int, weighting: Weighting, level: str) -> list[Case]:
    """Return the evidence that photos would have in a gallery without their label, or their make: a `level`.

    Photos for which fewer than k such neighbours were found are left out.
    """
    depth = LEVELS[level]
    numbers: dict[tuple[str, ...], int] = {}
    number = np.array([numbers.setdefault(path(label)[:depth], len(numbers)) for label in trial.labels])
    positions, truth = trial.neighbours.positions, trial.neighbours.truth
    own = (positions < 0) | (number[positions] == number[truth][:, None])
    columns = np.argsort(own, axis=1, kind="stable")[:, :k]
    photos = np.flatnonzero((~own).sum(axis=1) >= k)
    context = trial.context(weighting)
    return [
        Case(trial.labels[of], made)
        for of, found in zip(truth[photos].tolist(), trial.found(photos, columns[photos]), strict=True)
        if (made := gather([found], context))
    ]
