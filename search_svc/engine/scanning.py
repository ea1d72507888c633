"""Exact search: every embedding is compared with, as it lies on disk."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.float16 import candidates, codes_of, new_index, scored
from search_svc.engine.merge import Fetched, Hits, empty, merge
from search_svc.index.version import Metric

_CHUNK_ROWS = 512
"""Embeddings read at a time: few enough to stay in the processor's cache."""


@dataclass(frozen=True)
class Scan:
    """Exact search of some rows of the float16 embeddings."""

    embeddings: NDArray[np.float16]
    """(items, dimension): all embeddings of the gallery."""
    rows: Sequence[int] | NDArray[np.int64]
    """Rows to compare with; hits name them as ids."""
    metric: Metric
    longest: float
    """The length of the longest of these rows, or more."""

    def fetch(self, queries: NDArray[np.float32], k: int) -> Fetched:
        index = new_index(self.embeddings.shape[1], self.metric)
        best = empty(len(queries))
        for start in range(0, len(self.rows), _CHUNK_ROWS):
            rows = np.asarray(self.rows[start : start + _CHUNK_ROWS])
            index.reset()
            found = candidates(index, codes_of(self.embeddings[rows]), queries, min(k, len(rows)))
            best = merge([best, Hits(found.scores, rows[found.ids])], k)
        return scored(best, queries, self.embeddings, self.longest, self.metric)


def length_of_longest(embeddings: NDArray[np.float16], rows: range) -> float:
    """Return the length of the longest of the rows, all of which are read."""
    chunks = (embeddings[np.array(rows[start : start + _CHUNK_ROWS])] for start in range(0, len(rows), _CHUNK_ROWS))
    return max(math.sqrt(np.square(chunk, dtype=np.float32).sum(axis=1).max()) for chunk in chunks)
