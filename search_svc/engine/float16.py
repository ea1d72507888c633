"""Comparing queries with every one of some float16 embeddings, and scoring what is best exactly.

Exact search reads the embeddings anew for each search (`scanning`), or keeps them in faiss (`blocks`). Either way the
quickest computation finds the candidates, and the kernel for single pairs scores them.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.comparing import rescored, rounding, similarities
from search_svc.engine.faiss_layers import METRICS, metric_of
from search_svc.engine.merge import Fetched, Hits
from search_svc.index.version import Metric

# The type hints that faiss ships do not know all of its functions.
_faiss: Any = faiss

_WORTH_WIDENING = 20
"""From so many queries on it pays to widen the embeddings to float32, for BLAS."""


def new_index(dimension: int, metric: Metric) -> Any:
    """Return an empty faiss index of float16 embeddings."""
    return _faiss.IndexScalarQuantizer(dimension, _faiss.ScalarQuantizer.QT_fp16, METRICS[metric])


def codes_of(embeddings: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Return the bytes (n, 2 * dimension) that the index stores for embeddings (n, dimension)."""
    return np.ascontiguousarray(embeddings).view(np.uint8)


def stored_codes(index: Any) -> NDArray[np.uint8]:
    """Return the bytes (n, 2 * dimension) of all that the index holds, not copied."""
    codes: NDArray[np.uint8] = _faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    return codes.reshape(index.ntotal, -1)


def candidates(index: Any, codes: NDArray[np.uint8], queries: NDArray[np.float32], k: int) -> Hits:
    """Return the k best of the embeddings with these codes, by row; their scores may be off by some rounding.

    `index` either holds these embeddings, or is empty: then it gets them if that is the quickest way to search.
    """
    if len(queries) >= _WORTH_WIDENING:
        distances, rows = faiss.knn(queries, index.sa_decode(codes), k, index.metric_type)
    else:
        if not index.ntotal:
            index.add_sa_codes(codes)
        distances, rows = index.search(queries, k)
    return Hits(similarities(distances, metric_of(index)), rows)


def scored(
    best: Hits, queries: NDArray[np.float32], embeddings: NDArray[np.float16], longest: float, metric: Metric
) -> Fetched:
    """Score the best candidates exactly. None of the embeddings (items, dimension) is longer than `longest`."""
    last = best.scores[:, -1].astype(np.float64) + rounding(queries, longest, metric)
    return Fetched(rescored(best, queries, embeddings, metric), last)
