"""When faiss compares queries with a flat index in BLAS, which is much faster from a few queries on."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss

_FROM_QUERIES = 6
"""Measured: even from here on, or before, on 64 to 2048 dimensions, by either metric; with 64 queries eight times faster."""
_FAISS_OWN: int = faiss.cvar.distance_compute_blas_threshold
"""Floats of queries, 128,000: 250 queries of 512 dimensions."""


@contextmanager
def for_batches(dimension: int) -> Iterator[None]:
    """Inside, faiss uses BLAS from six queries on.

    It is a setting of the whole process, and put back so that an index is built the same whether or not there was a search
    before. Of threads that search at once, one may find it put back too soon: it is slower then, no more.
    """
    faiss.cvar.distance_compute_blas_threshold = _FROM_QUERIES * dimension
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = _FAISS_OWN
