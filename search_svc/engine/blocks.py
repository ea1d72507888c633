"""Exact search of embeddings that are only appended to, in blocks that faiss keeps once they are full.

`scanning` reads rows from wherever they lie, and hands them to faiss anew for each search. Every query is compared with
what was written to a gallery, so that is handed over once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.float16 import candidates, codes_of, new_index, scored, stored_codes
from search_svc.engine.merge import Fetched, Hits, empty, merge
from search_svc.index.version import Metric
from search_svc.voting.growing import Growing

_BLOCK_ROWS = 2048


class Blocks:
    """Float16 embeddings in blocks. One thread appends; any number of threads search the first so many rows."""

    def __init__(self, dimension: int, metric: Metric) -> None:
        self.embeddings = Growing(np.float16, dimension)
        self._metric = metric
        self._full: list[Any] = []
        self._last: tuple[int, Any] = (0, None)
        """The block that is not full, as of its last search, and the number of rows in all that it was made for."""

    def append(self, vector: NDArray[np.float16]) -> None:
        self.embeddings.append(vector)
        count = len(self.embeddings)
        if count % _BLOCK_ROWS == 0:
            self._full.append(self._index(self.embeddings.first(count)[-_BLOCK_ROWS:]))

    def fetch(self, rows: int, longest: float, queries: NDArray[np.float32], k: int) -> Fetched:
        """Return the k best hits among the first `rows`, with exact scores. None of them is longer than `longest`."""
        best = empty(len(queries))
        for start in range(0, rows, _BLOCK_ROWS):
            index = self._block(start, rows)
            found = candidates(index, stored_codes(index), queries, min(k, index.ntotal))
            best = merge([best, Hits(found.scores, found.ids + start)], k)
        return scored(best, queries, self.embeddings.first(rows), longest, self._metric)

    def _block(self, start: int, rows: int) -> Any:
        """Return the faiss index of the rows from `start` to the end of the block, or to `rows`."""
        if start + _BLOCK_ROWS <= rows:
            return self._full[start // _BLOCK_ROWS]
        made_for, index = self._last
        if made_for != rows:
            index = self._index(self.embeddings.first(rows)[start:])
            self._last = rows, index
        return index

    def _index(self, embeddings: NDArray[np.float16]) -> Any:
        index = new_index(embeddings.shape[1], self._metric)
        index.add_sa_codes(codes_of(embeddings))
        return index
