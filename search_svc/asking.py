"""How faiss is asked, so that an answer depends on the query and the index alone.

faiss computes inner products of many queries with BLAS, whose rounding depends on the shape of the whole matrix: on how
many queries there are, and how many vectors. Photos that tie then differ in their last bits, from batch to batch and
from shard to shard.
"""

from dataclasses import dataclass
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.merge import Fetched, Hits

# The type hints that faiss ships do not know all of its functions.
_faiss: Any = faiss

_LAMBDA = 4
"""Rounding errors of a sum of n products are within `_LAMBDA * sqrt(n) * 2**-24` of its terms' size, all but surely.

Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis" (2019); the largest we saw was 0.1 of that.
"""


@dataclass(frozen=True)
class Flat:
    """Asks a flat index: BLAS finds the candidates, and a kernel that looks at one pair at a time scores them."""

    index: Any
    longest: float
    """The length of the longest vector."""

    @classmethod
    def over(cls, index: Any, longest: float | None = None) -> Self:
        """Reads every vector if the length of the longest is not known."""
        if longest is not None:
            return cls(index, longest)
        squares = np.empty(index.ntotal, np.float32)
        _faiss.fvec_norms_L2sqr(faiss.swig_ptr(squares), index.get_xb(), index.d, index.ntotal)
        return cls(index, float(squares.max()) ** 0.5)

    def fetch(self, queries: NDArray[np.float32], k: int, options: Any) -> Fetched:
        candidates, rows = self.index.search(queries, k, params=options)
        last = _scores(candidates, rows, self.index)[:, -1].astype(np.float64)
        return Fetched(
            Hits(_scores(self._distances(queries, rows), rows, self.index), rows), last + self._slack(queries)
        )

    def _distances(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(Q, k): the same bits as faiss gives for one query."""
        distances = np.empty(rows.shape, np.float32)
        pointers = (faiss.swig_ptr(np.ascontiguousarray(queries)), rows.shape[1], faiss.swig_ptr(distances))
        self.index.compute_distance_subset(len(queries), *pointers, faiss.swig_ptr(rows))
        return distances

    def _slack(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """(Q,): how far apart two computations of one score may be."""
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        ip = self.index.metric_type == faiss.METRIC_INNER_PRODUCT
        sizes = lengths * self.longest if ip else (lengths + self.longest) ** 2
        slack: NDArray[np.float64] = _LAMBDA * self.index.d**0.5 * 2.0**-24 * sizes
        return slack


@dataclass(frozen=True)
class OneByOne:
    """Asks any other index for one query at a time, which costs it little: it gains little from more.

    In company, coarse quantizers and vector transforms would round differently.
    """

    index: Any

    def fetch(self, queries: NDArray[np.float32], k: int, options: Any) -> Fetched:
        answers = [self.index.search(queries[row : row + 1], k, params=options) for row in range(len(queries))]
        distances, rows = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        scores = _scores(distances, rows, self.index)
        return Fetched(Hits(scores, rows), scores[:, -1])


def asking(index: Any, longest: float | None = None) -> Flat | OneByOne:
    """`longest` is the length of the longest vector in the index; None if it is not known."""
    return Flat.over(index, longest) if isinstance(index, faiss.IndexFlat) else OneByOne(index)


def _scores(distances: NDArray[np.float32], rows: NDArray[np.int64], index: Any) -> NDArray[np.float32]:
    """Higher is nearer; -inf where there is no hit."""
    scores = distances if index.metric_type == faiss.METRIC_INNER_PRODUCT else 0 - distances
    return np.where(rows < 0, np.float32(-np.inf), scores)
