"""Exact search: every embedding is compared with, as it lies on disk."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.comparing import rescored, rounding
from search_svc.engine.faiss_layers import METRICS
from search_svc.engine.merge import Fetched, Hits, empty, merge
from search_svc.index.version import Metric

# The type hints that faiss ships do not know all of its functions.
_faiss: Any = faiss

_CHUNK_ROWS = 512
"""Embeddings read at a time: few enough to stay in the processor's cache."""
_WORTH_WIDENING = 20
"""So many queries, and it pays to widen the embeddings to float32, for BLAS. Fewer are compared with the halves."""


@dataclass(frozen=True)
class Scan:
    """Some rows of the float16 embeddings. The quickest way finds candidates; the kernel for one pair scores them."""

    embeddings: NDArray[np.float16]
    """(items, dimension): of the whole gallery."""
    rows: Sequence[int] | NDArray[np.int64]
    """Those to compare with, by id."""
    metric: Metric
    longest: float
    """The length of the longest of them, or more."""

    def fetch(self, queries: NDArray[np.float32], k: int) -> Fetched:
        compare = self._widened if len(queries) >= _WORTH_WIDENING else self._halves
        index = _faiss.IndexScalarQuantizer(
            self.embeddings.shape[1], _faiss.ScalarQuantizer.QT_fp16, METRICS[self.metric]
        )
        best = empty(len(queries))
        for start in range(0, len(self.rows), _CHUNK_ROWS):
            rows = np.asarray(self.rows[start : start + _CHUNK_ROWS])
            codes = self.embeddings[rows].view(np.uint8)
            distances, places = compare(index, codes, queries, min(k, len(rows)))
            best = merge([best, Hits(distances if self.metric == "ip" else 0 - distances, rows[places])], k)
        slack = rounding(queries, self.longest, self.metric)
        return Fetched(
            rescored(best, queries, self.embeddings, self.metric), best.scores[:, -1].astype(np.float64) + slack
        )

    def _halves(self, index: Any, codes: NDArray[np.uint8], queries: NDArray[np.float32], k: int) -> Any:
        index.reset()
        index.add_sa_codes(codes)
        return index.search(queries, k)

    def _widened(self, index: Any, codes: NDArray[np.uint8], queries: NDArray[np.float32], k: int) -> Any:
        return faiss.knn(queries, index.sa_decode(codes), k, METRICS[self.metric])


def length_of_longest(embeddings: NDArray[np.float16], rows: range) -> float:
    """Reads all of the rows."""
    chunks = (embeddings[np.array(rows[start : start + _CHUNK_ROWS])] for start in range(0, len(rows), _CHUNK_ROWS))
    return max(math.sqrt(np.square(chunk, dtype=np.float32).sum(axis=1).max()) for chunk in chunks)
