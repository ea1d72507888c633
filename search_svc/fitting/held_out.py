"""Held-out photos: photos of a gallery's labels that are not in the gallery, and the neighbours that the index finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.local import LocalEngine
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import Label

LEAST_PHOTOS = 100
LEAST_LABELS = 5
MOST_PHOTOS = 4000
"""If there are more, so many are drawn at random."""
DEPTH = 1024
"""Neighbours searched for beyond those that vote: enough for most photos to have some of another make."""
_BATCH = 256


@dataclass(frozen=True)
class HeldOutPhotos:
    """Photos of a gallery's labels that are not in the gallery."""

    embeddings: NDArray[Any]  # (M, dimension)
    rows: NDArray[np.int64]
    """(Q,) The rows of the photos in `embeddings`."""
    labels: Sequence[Label]
    """(Q,) The labels of the photos, each of which the gallery has."""

    @property
    def enough(self) -> bool:
        """Whether there are photos and labels enough to fit a calibration."""
        return len(self.rows) >= LEAST_PHOTOS and len(set(self.labels)) >= LEAST_LABELS


@dataclass(frozen=True)
class HeldOutNeighbours:
    """The neighbours of held-out photos, nearest first. Labels are given as positions in the gallery's list of labels."""

    queries: NDArray[np.float32]  # (Q, dimension)
    rows: NDArray[np.int64]  # (Q, K): the neighbours' rows in the gallery; -1 where there are fewer than K
    scores: NDArray[np.float64]  # (Q, K)
    positions: NDArray[np.int64]  # (Q, K): the labels of the neighbours; -1 where there are fewer than K
    truth: NDArray[np.int64]  # (Q,): the labels of the photos

    def part(self, photos: NDArray[np.bool_]) -> "HeldOutNeighbours":
        """Return the neighbours of some photos, a mask (Q,)."""
        return HeldOutNeighbours(
            self.queries[photos], self.rows[photos], self.scores[photos], self.positions[photos], self.truth[photos]
        )

    def among(self, kept: NDArray[np.bool_]) -> "HeldOutNeighbours":
        """Return the neighbours that are left if the gallery has only the rows `kept`, a mask (items,)."""
        gone = (self.rows < 0) | ~kept[self.rows]
        order = np.argsort(gone, axis=1, kind="stable")
        rows, scores, positions = (
            np.take_along_axis(np.where(gone, nothing, of), order, 1)
            for nothing, of in ((-1, self.rows), (-np.inf, self.scores), (-1, self.positions))
        )
        left = HeldOutNeighbours(self.queries, rows, scores, positions, self.truth)
        return left.part(rows[:, 0] >= 0)


def search_held_out(
    version: IndexVersion, shards: LocalEngine, held_out: HeldOutPhotos, voters: int, rng: np.random.Generator
) -> HeldOutNeighbours:
    """Find `voters` + DEPTH neighbours of each held-out photo, or of MOST_PHOTOS that `rng` draws."""
    place = {label.label: position for position, label in enumerate(version.items.labels)}
    chosen = np.sort(rng.choice(len(held_out.rows), min(len(held_out.rows), MOST_PHOTOS), replace=False))
    depth = min(len(version.items), voters + DEPTH)
    rows = held_out.rows[chosen]
    hits = [
        shards.search(held_out.embeddings[rows[start : start + _BATCH]].astype(np.float32), depth).hits
        for start in range(0, len(rows), _BATCH)
    ]
    ids = np.concatenate([each.ids for each in hits])
    scores = np.concatenate([each.scores for each in hits]).astype(np.float64)
    positions = np.where(ids >= 0, version.items.label_of[ids], -1).astype(np.int64)
    truth = np.array([place[held_out.labels[row].label] for row in chosen], np.int64)
    queries = held_out.embeddings[rows].astype(np.float32)
    return HeldOutNeighbours(queries, ids, scores, positions, truth).part(ids[:, 0] >= 0)
