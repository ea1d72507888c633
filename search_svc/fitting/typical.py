"""Measure how near photos of one label typically are to each other; a query's nearest neighbour is compared with that.

Labels differ: sports cars of one shape lie close together, vans of all colours and roofs far apart. A query as near as
photos of its neighbour's label usually are is at home there; the same score may be far for another label.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from search_svc.index.version import Metric

_NEAREST = 3
"""The neighbour that counts: the nearest may be a near-duplicate."""
_MOST_PHOTOS = 200
"""Photos of a label that are compared at most; they are drawn at random."""
_SHRINKAGE = 5.0
"""Photos' worth of trust in the mean over all labels."""


def typical_scores(
    embeddings: NDArray[np.float16], label_of: NDArray[np.int32], labels: int, metric: Metric, seed: int
) -> NDArray[np.float64]:
    """Return, for each label, the mean over its photos of the score of the third nearest photo of that label: (labels,).

    A label with fewer photos uses its farthest. A label with few photos is shrunk towards the mean over all labels; one with a lone photo gets that mean.
    """
    rng = np.random.default_rng(seed)
    rows_of = np.split(np.argsort(label_of, kind="stable"), np.cumsum(np.bincount(label_of, minlength=labels))[:-1])
    sums, counts = np.zeros(labels), np.zeros(labels)
    for label, rows in enumerate(rows_of):
        if len(rows) > 1:
            chosen = np.sort(rng.choice(rows, min(len(rows), _MOST_PHOTOS), replace=False))
            scores = _to_own(embeddings[chosen].astype(np.float32), metric)
            sums[label], counts[label] = scores.sum(), len(scores)
    mean = sums.sum() / max(counts.sum(), 1)
    shrunk: NDArray[np.float64] = (sums + _SHRINKAGE * mean) / (counts + _SHRINKAGE)
    return shrunk


def mean_of(typical: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """Return the mean that typical scores were shrunk towards, computed from them; 0 if there are none."""
    weights = {label: _counted(sizes.get(label, 0)) + _SHRINKAGE for label in typical}
    return sum(weights[label] * score for label, score in typical.items()) / max(sum(weights.values()), 1)


def typical_score(embeddings: NDArray[np.float16], mean: float, metric: Metric, seed: int) -> float:
    """Return the typical score of one label with these embeddings, shrunk towards `mean` as `typical_scores` does."""
    if len(embeddings) < 2:
        return mean
    chosen = np.random.default_rng(seed).choice(len(embeddings), _counted(len(embeddings)), replace=False)
    scores = _to_own(embeddings[np.sort(chosen)].astype(np.float32), metric)
    return float(scores.sum() + _SHRINKAGE * mean) / (len(scores) + _SHRINKAGE)


def _counted(photos: int) -> int:
    """Return how many photos of a label are counted: of a lone one none, because there is no other to compare it with."""
    return min(photos, _MOST_PHOTOS) if photos > 1 else 0


def _to_own(vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Return, for each of N >= 2 photos of a label, its score with the third nearest of the others: (N,)."""
    scores = vectors @ vectors.T
    if metric == "l2":
        squares = np.diagonal(scores).copy()
        scores = np.minimum(2 * scores - squares[:, None] - squares, 0)
    np.fill_diagonal(scores, -np.inf)
    place = len(vectors) - min(_NEAREST, len(vectors) - 1)
    nearest: NDArray[np.float32] = np.partition(scores, place, axis=1)[:, place]
    return nearest
