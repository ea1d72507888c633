"""Cases: cars whose labels are known, and the evidence of one or several photos of each; and strangers to the gallery."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.fitting.held_out import HeldOutNeighbours
from search_svc.voting.evidence import Evidence, VoteContext, gather
from search_svc.voting.labels import Label
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import path

GROUPS = (1, 2, 3, 4, 5)
"""Photos that are fused, to learn what fused votes are worth."""


@dataclass(frozen=True)
class Case:
    """A car whose label is known, and the evidence of some photos of it."""

    truth: Label
    evidence: Evidence

    def right(self, level: str) -> bool:
        depth = {"make": 1, "model": 2, "label": 3}[level]
        return path(self.truth)[:depth] == path(self.evidence.vote.answer)[:depth]


def cases(
    asked: HeldOutNeighbours, labels: Sequence[Label], k: int, context: VoteContext, rng: np.random.Generator
) -> list[list[Case]]:
    """For each of GROUPS, as many groups of photos of one label as there are photos, or less: no two are the same."""
    photos_of: dict[Label, list[QueryNeighbours]] = defaultdict(list)
    for scores, positions, truth in zip(asked.scores, asked.positions, asked.truth.tolist(), strict=True):
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
    if photos < size:
        return []
    if size == 1:
        return [(place,) for place in range(photos)]
    return sorted({tuple(sorted(rng.choice(photos, size, replace=False).tolist())) for _ in range(photos)})


def strangers(asked: HeldOutNeighbours, labels: Sequence[Label], k: int, context: VoteContext) -> list[Evidence]:
    """What photos would find in a gallery without their label, or their make; where k neighbours are known for that."""
    makes = [path(label)[0] for label in labels]
    number = np.unique(makes, return_inverse=True)[1]
    found = []
    for scores, positions, truth in zip(asked.scores, asked.positions, asked.truth, strict=True):
        for foreign in (positions != truth, number[positions] != number[truth]):
            others = np.flatnonzero((positions >= 0) & foreign)[:k]
            if len(others) == k and (evidence := gather([_found(scores[others], positions[others], labels)], context)):
                found.append(evidence)
    return found


def _found(scores: NDArray[np.float64], positions: NDArray[np.int64], labels: Sequence[Label]) -> QueryNeighbours:
    kept = positions >= 0
    return QueryNeighbours([], [labels[position] for position in positions[kept].tolist()], scores[kept].tolist())
