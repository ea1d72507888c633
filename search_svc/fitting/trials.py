"""Galleries on trial, and the held-out photos that are asked in them: the gallery of an index version, and that gallery after most
photos of some labels were taken out of it.

A gallery is built of labels with dozens of photos, and then gets labels with a handful. Held-out photos of labels that were
thinned to a handful stand for photos of those.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.fitting.held_out import HeldOutNeighbours
from search_svc.fitting.typical import mean_of, typical_score
from search_svc.index.version import IndexVersion
from search_svc.voting.evidence import VoteContext
from search_svc.voting.labels import Label
from search_svc.voting.means import Means
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import Weighting

_PARTS = 4
"""The labels are divided into so many parts; in each thinned gallery, the labels of one of them are thinned."""
_LEFT = (1, 2, 3, 5, 10, 20)
"""Numbers of photos that are left of a label; each is drawn as often."""


@dataclass(frozen=True)
class Trial:
    """A gallery on trial, and the neighbours that held-out photos have in it. Labels are given by their numbers."""

    neighbours: HeldOutNeighbours
    labels: Sequence[Label]
    sizes: NDArray[np.int64]
    """(labels,) The number of photos of each label."""
    means: Means
    typical: NDArray[np.float64]
    """(labels,) The score that photos of each label typically have with each other."""

    @property
    def names(self) -> list[str]:
        return [label.label for label in self.labels]

    def context(self, weighting: Weighting) -> VoteContext:
        sizes, typical = (dict(zip(self.names, of.tolist(), strict=True)) for of in (self.sizes, self.typical))
        return VoteContext(weighting, sizes, typical)

    def similarities(self, photos: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cosines of some photos (Q,), given by their place, with the means of labels (Q, k): (Q, k)."""
        return self.means.similarities(self.neighbours.queries[photos], positions)

    def found(self, photos: NDArray[np.int64], columns: NDArray[np.int64]) -> list[QueryNeighbours]:
        """Return the neighbours in some columns (Q, k) of some photos (Q,), given by their place."""
        positions = self.neighbours.positions[photos[:, None], columns]
        scores = self.neighbours.scores[photos[:, None], columns]
        means = self.similarities(photos, positions)
        return [
            QueryNeighbours(
                [],
                [self.labels[place] for place in of[of >= 0].tolist()],
                of_scores[of >= 0].tolist(),
                of_means[of >= 0].tolist(),
            )
            for of, of_scores, of_means in zip(positions, scores, means, strict=True)
        ]


@dataclass(frozen=True)
class ThinnedTrials:
    """Trials of galleries in which some labels were thinned: each held-out photo is asked in one of either kind."""

    new: Sequence[Trial]
    """Photos whose own label was thinned."""
    others: Sequence[Trial]
    """Photos whose own label was not."""


def thinned(version: IndexVersion, whole: Trial, rng: np.random.Generator) -> ThinnedTrials:
    """Return trials of the version's gallery with thinned labels. `whole` is the trial of the gallery as it is."""
    part_of = rng.permutation(len(whole.labels)) % _PARTS
    left = np.array(_LEFT)[rng.integers(0, len(_LEFT), len(whole.labels))]
    new: list[Trial] = []
    others: list[Trial] = []
    for part in range(_PARTS):
        kept = _kept(version.items.label_of, np.where(part_of == part, left, np.iinfo(np.int64).max), rng)
        gallery = _thin(version, whole, kept, np.flatnonzero(part_of == part).tolist())
        for trials, asked in ((new, part), (others, (part + 1) % _PARTS)):
            photos = part_of[whole.neighbours.truth] == asked
            trials.append(_asking(gallery, whole.neighbours.part(photos).among(kept)))
    return ThinnedTrials(new, others)


def _kept(label_of: NDArray[np.int32], most: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw which rows of a gallery to keep, so that no label has more rows than `most` (labels,) says: (items,)."""
    order = rng.permutation(len(label_of))
    order = order[np.argsort(label_of[order], kind="stable")]
    counts = np.bincount(label_of, minlength=len(most))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.zeros(len(label_of), np.bool_)
    kept[order] = place < most[label_of[order]]
    return kept


def _thin(version: IndexVersion, whole: Trial, kept: NDArray[np.bool_], thin: Sequence[int]) -> Trial:
    """Return the trial `whole` with the sizes, means and typical scores that a gallery of the rows `kept` alone has.

    They differ for the labels `thin`. The neighbours are still those in the whole gallery.
    """
    manifest, label_of = version.manifest, version.items.label_of
    mean = mean_of(*(dict(zip(whole.names, of.tolist(), strict=True)) for of in (whole.typical, whole.sizes)))
    typical, sums = whole.typical.copy(), {}
    for label in thin:
        photos = version.embeddings[np.flatnonzero(kept & (label_of == label))]
        typical[label] = typical_score(photos, mean, manifest.metric, manifest.seed)
        sums[label] = photos.astype(np.float64).sum(axis=0)
    sizes = np.bincount(label_of[kept], minlength=len(whole.labels))
    return Trial(whole.neighbours, whole.labels, sizes, whole.means.with_changes(sums), typical)


def _asking(gallery: Trial, neighbours: HeldOutNeighbours) -> Trial:
    return Trial(neighbours, gallery.labels, gallery.sizes, gallery.means, gallery.typical)
