"""Drift: whether recent queries are as near to the gallery as the photos were that its calibration was fitted to.

The calibration has the deciles of the similarity of its dev photos with their nearest photo of the gallery. As long as queries
are like dev photos, a tenth of them falls between each two deciles; the population stability index, the sum of
(share - 0.1) * ln(share / 0.1) over the ten parts, says how far from that they are. It is 0 for equal shares; by the custom of
credit scoring, where it comes from, 0.1 is worth a look and 0.25 is another population (Siddiqi 2006, "Credit Risk Scorecards").
"""

import math
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WINDOW = 1000
"""The most recent queries are compared."""
LEAST = 200
"""With fewer, chance alone can make an index of 0.1."""


class QueryDrift:
    """The similarities of the last WINDOW queries with their nearest photo of the gallery. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._deciles: tuple[float, ...] = ()

    def add(self, similarities: Sequence[float], deciles: tuple[float, ...]) -> None:
        """Add queries to a gallery with these `deciles`. Those to a gallery with others are forgotten."""
        with self._lock:
            if deciles != self._deciles:
                self._recent.clear()
                self._deciles = deciles
            self._recent.extend(similarities)

    @property
    def index(self) -> float:
        """The population stability index; NaN if there were fewer than LEAST queries, or the calibration has no deciles."""
        with self._lock:
            recent, deciles = list(self._recent), self._deciles
        return stability_index(recent, deciles) if deciles and len(recent) >= LEAST else math.nan


def stability_index(similarities: Sequence[float], deciles: Sequence[float]) -> float:
    """Return the population stability index of similarities against nine deciles. An empty part counts as half a query.

    Where deciles are equal, as with many dev photos that the gallery has copies of, nothing is between them: queries of just that
    similarity belong to all the parts around them, and count where there are fewest.
    """
    first, last = (np.searchsorted(deciles, similarities, side) for side in ("left", "right"))
    among_equal = last - first > 1
    counts = np.bincount(first[~among_equal], minlength=len(deciles) + 1).astype(float)
    for low, high in np.unique(np.stack([first, last], 1)[among_equal], axis=0):
        counts[low : high + 1] = _levelled(counts[low : high + 1], np.sum(among_equal & (first == low)))
    shares = np.maximum(counts, 0.5) / len(similarities)
    expected = 1 / (len(deciles) + 1)
    return float(np.sum((shares - expected) * np.log(shares / expected)))


def _levelled(counts: NDArray[np.float64], more: int) -> NDArray[np.float64]:
    """Return the counts after so many more were added to the lowest of them."""
    lowest = np.sort(counts)
    levels = (more + np.cumsum(lowest)) / np.arange(1, len(counts) + 1)  # if the first one, two, ... were raised
    return np.maximum(counts, np.min(levels))
