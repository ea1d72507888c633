"""Held-out photos: photos of a gallery's labels that are not in it, and what the index finds for them."""

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
"""Drawn at random from more."""
DEPTH = 1024
"""Neighbours beyond those that vote: most photos have some of another make then."""
_BATCH = 256


@dataclass(frozen=True)
class Held:
    """Photos of a gallery's labels that are not in the gallery."""

    embeddings: NDArray[Any]  # (M, dimension)
    rows: NDArray[np.int64]
    """(Q,) of the embeddings: the photos."""
    labels: Sequence[Label]
    """(Q,) theirs; each is one of the gallery's."""

    @property
    def enough(self) -> bool:
        """Whether a calibration can be fitted on them."""
        return len(self.rows) >= LEAST_PHOTOS and len(set(self.labels)) >= LEAST_LABELS


@dataclass(frozen=True)
class HeldOutNeighbours:
    """The neighbours of photos whose labels are known, nearest first; where there are fewer, position -1."""

    scores: NDArray[np.float64]  # (Q, K)
    positions: NDArray[np.int64]  # (Q, K) of the neighbours' labels, in the gallery's list of labels
    truth: NDArray[np.int64]  # (Q,) of the photos' own


def ask(
    version: IndexVersion, shards: LocalEngine, held: Held, voters: int, rng: np.random.Generator
) -> HeldOutNeighbours:
    """The neighbours of held photos: `voters`, and many more."""
    place = {label.label: position for position, label in enumerate(version.items.labels)}
    chosen = np.sort(rng.choice(len(held.rows), min(len(held.rows), MOST_PHOTOS), replace=False))
    depth = min(len(version.items), voters + DEPTH)
    hits = [
        shards.search(held.embeddings[held.rows[chosen[start : start + _BATCH]]].astype(np.float32), depth).hits
        for start in range(0, len(chosen), _BATCH)
    ]
    ids = np.concatenate([each.ids for each in hits])
    scores = np.concatenate([each.scores for each in hits]).astype(np.float64)
    positions = np.where(ids >= 0, version.items.label_of[ids], -1).astype(np.int64)
    answered = ids[:, 0] >= 0
    truth = np.array([place[held.labels[row].label] for row in chosen], np.int64)
    return HeldOutNeighbours(scores[answered], positions[answered], truth[answered])
