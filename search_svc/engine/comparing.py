"""Exact scores: a query with an embedding, as if the two were alone.

faiss' kernel for one pair gives the same bits whatever else is compared. So exact search, reranking and a Flat index
agree to the bit on the score of a photo.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.merge import Hits
from search_svc.engine.threads import one_core
from search_svc.index.version import Metric

# The type hints that faiss ships do not know all of its functions.
_faiss: Any = faiss

_CHUNK_PAIRS = 512

_LAMBDA = 4
"""Rounding errors of a sum of n products are within `_LAMBDA * sqrt(n) * 2**-24` of the size of its terms, all but surely.

Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis" (2019). The largest that we measured was 0.1
of that."""


def rescored(candidates: Hits, queries: NDArray[np.float32], embeddings: NDArray[np.float16], metric: Metric) -> Hits:
    """Return the candidates with exact scores, their ids in the same order.

    Of the embeddings (items, dimension) only the rows that the ids name are read, in the order in which they lie on disk.
    """
    ids = candidates.ids.ravel()
    scores = np.full(ids.shape, -np.inf, np.float32)
    by_row = np.argsort(ids, kind="stable")[np.count_nonzero(ids < 0) :]
    for start in range(0, len(by_row), _CHUNK_PAIRS):
        pairs = by_row[start : start + _CHUNK_PAIRS]
        rows, vectors_of = np.unique(ids[pairs], return_inverse=True)
        queries_of = pairs // candidates.ids.shape[1]
        scores[pairs] = pair_scores(queries, queries_of, embeddings[rows].astype(np.float32), vectors_of, metric)
    return Hits(scores.reshape(candidates.ids.shape), candidates.ids)


def pair_scores(
    queries: NDArray[np.float32],
    queries_of: NDArray[np.int64],
    vectors: NDArray[np.float32],
    vectors_of: NDArray[np.int64],
    metric: Metric,
) -> NDArray[np.float32]:
    """Return the scores (n,) of n pairs: of the queries in rows `queries_of` with the vectors in rows `vectors_of`."""
    kernel = _faiss.pairwise_indexed_inner_product if metric == "ip" else _faiss.pairwise_indexed_L2sqr
    distances = np.empty(len(queries_of), np.float32)
    left = (faiss.swig_ptr(np.ascontiguousarray(queries)), faiss.swig_ptr(queries_of))
    right = (faiss.swig_ptr(vectors), faiss.swig_ptr(vectors_of))
    with one_core():
        kernel(queries.shape[1], len(distances), *left, *right, faiss.swig_ptr(distances))
    return similarities(distances, metric)


def similarities(distances: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Return faiss' distances as scores, of which the higher is nearer: squared distances change their sign."""
    return distances if metric == "ip" else 0 - distances


def rounding(queries: NDArray[np.float32], longest: float, metric: Metric) -> NDArray[np.float64]:
    """Return (Q,) how far apart two computations of one score may be, for vectors no longer than `longest`."""
    lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries), dtype=np.float64)
    sizes = lengths * longest if metric == "ip" else (lengths + longest) ** 2
    slack: NDArray[np.float64] = _LAMBDA * queries.shape[1] ** 0.5 * 2.0**-24 * sizes
    return slack
