"""Exact search of embeddings that are only appended to: in blocks, which faiss keeps as they are once they are full.

`search_svc.engine.scanning` reads rows from wherever they lie, and hands them to faiss anew for each search. What was written to a
gallery is compared with by every query, so it is handed over once.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.comparing import rescored, rounding
from search_svc.engine.faiss_layers import METRICS
from search_svc.engine.merge import Fetched, Hits, empty, merge
from search_svc.index.version import Metric
from search_svc.voting.growing import Growing

# The type hints that faiss ships do not know all of its functions.
_faiss: Any = faiss

_BLOCK_ROWS = 2048
_WORTH_WIDENING = 20
"""So many queries, and it pays to widen the embeddings to float32, for BLAS."""


class Blocks:
    """One thread appends, any number search the first so many rows."""

    def __init__(self, dimension: int, metric: Metric) -> None:
        self.embeddings = Growing(np.float16, dimension)
        self._metric = metric
        self._full: list[Any] = []
        self._last: tuple[int, Any] = (0, None)
        """The block that is not full, as it was when it was last searched: of so many rows in all."""

    def append(self, vector: NDArray[np.float16]) -> None:
        self.embeddings.append(vector)
        count = len(self.embeddings)
        if count % _BLOCK_ROWS == 0:
            self._full.append(self._index(self.embeddings.first(count)[-_BLOCK_ROWS:]))

    def fetch(self, rows: int, longest: float, queries: NDArray[np.float32], k: int) -> Fetched:
        """The best hits among the first rows, none of which is longer than `longest`: by row, scored as exact search does."""
        best = empty(len(queries))
        for start in range(0, rows, _BLOCK_ROWS):
            index = self._block(start, rows)
            distances, places = self._compare(index, queries, min(k, index.ntotal))
            scores = distances if self._metric == "ip" else 0 - distances
            best = merge([best, Hits(scores, places + start)], k)
        last = best.scores[:, -1].astype(np.float64) + rounding(queries, longest, self._metric)
        return Fetched(rescored(best, queries, self.embeddings.first(rows), self._metric), last)

    def _block(self, start: int, rows: int) -> Any:
        if start + _BLOCK_ROWS <= rows:
            return self._full[start // _BLOCK_ROWS]
        at, index = self._last
        if at != rows:
            index = self._index(self.embeddings.first(rows)[start:])
            self._last = rows, index
        return index

    def _compare(self, index: Any, queries: NDArray[np.float32], k: int) -> Any:
        if len(queries) < _WORTH_WIDENING:
            return index.search(queries, k)
        codes = _faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size).reshape(index.ntotal, -1)
        return faiss.knn(queries, index.sa_decode(codes), k, METRICS[self._metric])

    def _index(self, embeddings: NDArray[np.float16]) -> Any:
        quantizer = _faiss.ScalarQuantizer.QT_fp16
        index = _faiss.IndexScalarQuantizer(embeddings.shape[1], quantizer, METRICS[self._metric])
        index.add_sa_codes(np.ascontiguousarray(embeddings).view(np.uint8))
        return index
