"""The examples that a calibration is fitted to, made of held-out photos: cases of known cars, and strangers.

A case is the evidence of one or several photos of a label. A stranger is the evidence that a photo would have if the gallery
lacked its label, or its make.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.fitting.held_out import HeldOutNeighbours
from search_svc.voting.evidence import Evidence, VoteContext, gather
from search_svc.voting.labels import Label
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import LEVELS, path

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
    neighbours: HeldOutNeighbours, labels: Sequence[Label], k: int, context: VoteContext, rng: np.random.Generator
) -> list[list[Case]]:
    """Return, for each size of GROUPS, cases of so many photos of one label.

    For each size a label has as many cases as it has photos, less where the draw gave the same photos twice.
    """
    photos_of: dict[Label, list[QueryNeighbours]] = defaultdict(list)
    for scores, positions, truth in _photos(neighbours):
        photos_of[labels[truth]].append(_found(scores[:k], positions[:k], labels))
    return [
        [
            Case(truth, evidence)
            for truth, photos in photos_of.items()
            for group in _groups(len(photos), size, rng)
            if (evidence := gather([photos[place] for place in group], context))
        ]
        for size in GROUPS
    ]


def _groups(photos: int, size: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Draw distinct groups of `size` out of `photos` places, as many as there are photos or less."""
    if photos < size:
        return []
    if size == 1:
        return [(place,) for place in range(photos)]
    return sorted({tuple(sorted(rng.choice(photos, size, replace=False).tolist())) for _ in range(photos)})


def strangers(neighbours: HeldOutNeighbours, labels: Sequence[Label], k: int, context: VoteContext) -> list[Evidence]:
    """Return the evidence that photos would have in a gallery without their label, and in one without their make.

    Photos for which fewer than k such neighbours were found are left out.
    """
    makes = [path(label)[0] for label in labels]
    number = np.unique(makes, return_inverse=True)[1]
    found = []
    for scores, positions, truth in _photos(neighbours):
        for foreign in (positions != truth, number[positions] != number[truth]):
            others = np.flatnonzero((positions >= 0) & foreign)[:k]
            if len(others) == k and (evidence := gather([_found(scores[others], positions[others], labels)], context)):
                found.append(evidence)
    return found


def _photos(neighbours: HeldOutNeighbours) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64], int]]:
    """Yield the scores and the label positions of each photo's neighbours, and the position of its own label."""
    return zip(neighbours.scores, neighbours.positions, neighbours.truth.tolist(), strict=True)


def _found(scores: NDArray[np.float64], positions: NDArray[np.int64], labels: Sequence[Label]) -> QueryNeighbours:
    kept = positions >= 0
    return QueryNeighbours([], [labels[position] for position in positions[kept].tolist()], scores[kept].tolist())
