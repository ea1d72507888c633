"""Adapters that search faiss indexes so that an answer depends on the query and the index alone.

faiss computes inner products of many queries with BLAS, whose rounding depends on the shape of the whole matrix: on how
many queries there are, and how many vectors. Photos that tie then differ in their last bits from batch to batch and
from shard to shard, and so do the scores of inverted lists. Each kind of index therefore has an adapter: it searches in
batches where every query can be given the bits that it would get alone, and one query at a time elsewhere.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.comparing import rounding, similarities
from search_svc.engine.faiss_layers import layers, metric_of, parameters, transforms
from search_svc.engine.merge import NO_IDS, Fetched, Hits, dropping, top_k
from search_svc.index.version import Metric, SearchParams

# The type hints that faiss ships do not know all of its functions.
_faiss: Any = faiss


@dataclass(frozen=True)
class SearchOptions:
    """The options of one search, which hold for every layer of an index."""

    params: SearchParams = field(default_factory=SearchParams)
    selector: Any = None
    """A faiss IDSelector of the rows to search; None: all rows."""


class IndexAdapter(Protocol):
    """A faiss index together with the way to search it."""

    @property
    def index(self) -> Any: ...

    @property
    def batching(self) -> bool:
        """Whether many queries together cost less than one by one."""

    def fetch(self, queries: NDArray[np.float32], k: int, options: SearchOptions) -> Fetched:
        """Return the k best hits of each query, with the very bits that it would get if it were searched alone."""


@dataclass(frozen=True)
class FlatAdapter:
    """Searches a flat index: BLAS finds the candidates, and a kernel that looks at one pair at a time scores them."""

    index: Any
    known_longest: float | None = None
    batching = True

    @cached_property
    def longest(self) -> float:
        """The length of the longest vector. If it is not known, all vectors are read for it, once."""
        if self.known_longest is not None:
            return self.known_longest
        squares = np.empty(self.index.ntotal, np.float32)
        _faiss.fvec_norms_L2sqr(faiss.swig_ptr(squares), self.index.get_xb(), self.index.d, self.index.ntotal)
        return math.sqrt(squares.max())

    def fetch(self, queries: NDArray[np.float32], k: int, options: SearchOptions) -> Fetched:
        candidates, rows = self.index.search(queries, k, params=_parameters([self.index], options))
        return self.scored(queries, candidates, rows, self.slack(queries))

    def scored(
        self,
        queries: NDArray[np.float32],
        candidates: NDArray[np.float32],
        rows: NDArray[np.int64],
        slack: NDArray[np.float64],
    ) -> Fetched:
        """Score the `rows` (Q, k) that a search found, a pair at a time.

        `candidates` (Q, k) are the distances by which they were found, each of them wrong by at most `slack` (Q,).
        """
        last = _scores(candidates[:, -1], rows[:, -1], self.metric).astype(np.float64)
        return Fetched(Hits(_scores(self._distances(queries, rows), rows, self.metric), rows), last + slack)

    def _distances(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the distances (Q, k) of queries to rows, with the bits that faiss gives for a single query."""
        distances = np.empty(rows.shape, np.float32)
        pointers = (faiss.swig_ptr(np.ascontiguousarray(queries)), rows.shape[1], faiss.swig_ptr(distances))
        self.index.compute_distance_subset(len(queries), *pointers, faiss.swig_ptr(rows))
        return distances

    def slack(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (Q,) how far apart two computations of one score may be."""
        return rounding(queries, self.longest, self.metric)

    @cached_property
    def metric(self) -> Metric:
        return metric_of(self.index)


@dataclass(frozen=True)
class IvfAdapter:
    """Searches an IVF index: an adapter chooses the lists, and faiss scans the lists of each query a photo at a time."""

    index: Any
    quantizer: IndexAdapter
    batching = False

    def fetch(self, queries: NDArray[np.float32], k: int, options: SearchOptions) -> Fetched:
        lists = self.choose_lists(queries, options)
        return self.scan(self.index, queries, k, lists, _parameters([self.index], options))

    def choose_lists(self, queries: NDArray[np.float32], options: SearchOptions) -> Hits:
        """Return the lists (Q, nprobe) to visit. Of lists that tie, a flat quantizer gives the first."""
        nprobe = min(options.params.nprobe or self.index.nprobe, self.index.nlist)
        if isinstance(self.quantizer, FlatAdapter):
            return nearest(self.quantizer, queries, nprobe, SearchOptions())
        return self.quantizer.fetch(queries, nprobe, SearchOptions()).hits

    def scan(self, index: Any, queries: NDArray[np.float32], k: int, lists: Hits, params: Any) -> Fetched:
        """Return the k best hits of each query in its lists. `index` is this adapter's own, or a copy on a GPU."""
        places = np.ascontiguousarray(lists.ids)
        sizes = np.ascontiguousarray(lists.scores if self.metric == "ip" else 0 - lists.scores)
        distances, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        index.search_preassigned_c(
            len(queries),
            faiss.swig_ptr(np.ascontiguousarray(queries)),
            k,
            faiss.swig_ptr(places),
            faiss.swig_ptr(sizes),
            faiss.swig_ptr(distances),
            faiss.swig_ptr(rows),
            False,
            params,
        )
        return _fetched(distances, rows, self.metric)

    @cached_property
    def metric(self) -> Metric:
        return metric_of(self.index)


@dataclass(frozen=True)
class TransformedAdapter:
    """Searches an index behind vector transforms (PCA, OPQ): each query is transformed alone."""

    index: Any
    inner: IndexAdapter

    @property
    def batching(self) -> bool:
        return self.inner.batching

    def fetch(self, queries: NDArray[np.float32], k: int, options: SearchOptions) -> Fetched:
        for step in self._chain:
            alone = (step.apply(queries[row : row + 1]) for row in range(len(queries)))
            queries = np.concatenate([np.empty((0, step.d_out), np.float32), *alone])
        return self.inner.fetch(queries, k, options)

    @cached_property
    def _chain(self) -> list[Any]:
        return transforms(self.index)


@dataclass(frozen=True)
class OneByOneAdapter:
    """Searches any other index one query at a time. That costs graphs nothing, for faiss walks them so anyway."""

    index: Any
    batching = False

    def fetch(self, queries: NDArray[np.float32], k: int, options: SearchOptions) -> Fetched:
        params = _parameters(self._layers, options)
        distances, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for row in range(len(queries)):
            one = slice(row, row + 1)
            self.index.search(queries[one], k, params=params, D=distances[one], I=rows[one])
        return _fetched(distances, rows, self._metric)

    @cached_property
    def _metric(self) -> Metric:
        return metric_of(self.index)

    @cached_property
    def _layers(self) -> list[Any]:
        return layers(self.index)


def adapter_of(index: Any, longest: float | None = None) -> IndexAdapter:
    """Return the adapter for a faiss index. `longest` is the length of its longest vector; None if it is not known."""
    if isinstance(index, faiss.IndexFlat):
        return FlatAdapter(index, longest)
    if isinstance(index, faiss.IndexPreTransform):
        return TransformedAdapter(index, adapter_of(faiss.downcast_index(index.index)))
    # Fast-scan kernels take queries together, and round what they look up by all of them.
    if isinstance(index, faiss.IndexIVF) and not isinstance(index, faiss.IndexIVFFastScan):
        quantizer = faiss.downcast_index(index.quantizer)
        flat = isinstance(quantizer, faiss.IndexFlat)
        return IvfAdapter(index, FlatAdapter(quantizer) if flat else OneByOneAdapter(quantizer))
    return OneByOneAdapter(index)


def nearest(
    adapter: IndexAdapter,
    queries: NDArray[np.float32],
    k: int,
    options: SearchOptions,
    without: NDArray[np.int64] = NO_IDS,
) -> Hits:
    """Return the k best hits of each query, leaving out the rows `without` (ascending). Ties go to the smallest rows."""

    def fetch(queries: NDArray[np.float32], k: int) -> Fetched:
        return adapter.fetch(queries, k, options)

    return top_k(dropping(fetch, without), queries, k, adapter.index.ntotal)


def _parameters(nested: list[Any], options: SearchOptions) -> Any:
    return parameters(nested, options.params, options.selector)


def _fetched(distances: NDArray[np.float32], rows: NDArray[np.int64], metric: Metric) -> Fetched:
    """Return what faiss found as hits, of which the last bounds whatever was not found."""
    scores = _scores(distances, rows, metric)
    return Fetched(Hits(scores, rows), scores[:, -1])


def _scores(distances: NDArray[np.float32], rows: NDArray[np.int64], metric: Metric) -> NDArray[np.float32]:
    """Return faiss' distances as scores, of which the higher is nearer; -inf where there is no hit."""
    return np.where(rows < 0, np.float32(-np.inf), similarities(distances, metric))
