"""How faiss is asked, so that an answer depends on the query and the index alone.

faiss computes inner products of many queries with BLAS, whose rounding depends on the shape of the whole matrix: on how
many queries there are, and how many vectors. Photos that tie then differ in their last bits, from batch to batch and
from shard to shard, and so do the scores of inverted lists. So each layer of an index has its own way to be asked: in a
batch where that gives every query the bits it gets alone, or is made to; one query at a time elsewhere.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.comparing import rounding
from search_svc.engine.faiss_layers import layers, metric_of, parameters, transforms
from search_svc.engine.merge import NONE, Fetched, Hits, dropping, top_k
from search_svc.index.version import Metric, SearchParams

# The type hints that faiss ships do not know all of its functions.
_faiss: Any = faiss


@dataclass(frozen=True)
class Options:
    """What a call tells every layer of an index."""

    params: SearchParams = field(default_factory=SearchParams)
    selector: Any = None
    """A faiss IDSelector; None: all rows."""


class IndexAdapter(Protocol):
    """A faiss index, and how to ask it."""

    @property
    def index(self) -> Any: ...

    def fetch(self, queries: NDArray[np.float32], k: int, options: Options) -> Fetched:
        """A number of the best hits of each query: to the bit those that it would get alone."""


@dataclass(frozen=True)
class Flat:
    """Asks a flat index: BLAS finds the candidates, and a kernel that looks at one pair at a time scores them."""

    index: Any
    known_longest: float | None = None

    @cached_property
    def longest(self) -> float:
        """The length of the longest vector. Where it is not known, the first search reads them all, as it does anyway."""
        if self.known_longest is not None:
            return self.known_longest
        squares = np.empty(self.index.ntotal, np.float32)
        _faiss.fvec_norms_L2sqr(faiss.swig_ptr(squares), self.index.get_xb(), self.index.d, self.index.ntotal)
        return math.sqrt(squares.max())

    def fetch(self, queries: NDArray[np.float32], k: int, options: Options) -> Fetched:
        candidates, rows = self.index.search(queries, k, params=parameters([self.index], *_told(options)))
        return self.scored(queries, candidates, rows, self.slack(queries))

    def scored(
        self,
        queries: NDArray[np.float32],
        candidates: NDArray[np.float32],
        rows: NDArray[np.int64],
        slack: NDArray[np.float64],
    ) -> Fetched:
        """The rows that were found, scored a pair at a time; what they were found by may be off by `slack` (Q,)."""
        last = _scores(candidates[:, -1], rows[:, -1], self.metric).astype(np.float64)
        return Fetched(Hits(_scores(self._distances(queries, rows), rows, self.metric), rows), last + slack)

    def _distances(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(Q, k): the same bits as faiss gives for one query."""
        distances = np.empty(rows.shape, np.float32)
        pointers = (faiss.swig_ptr(np.ascontiguousarray(queries)), rows.shape[1], faiss.swig_ptr(distances))
        self.index.compute_distance_subset(len(queries), *pointers, faiss.swig_ptr(rows))
        return distances

    def slack(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """(Q,): how far apart two computations of one score may be."""
        return rounding(queries, self.longest, self.metric)

    @cached_property
    def metric(self) -> Metric:
        return metric_of(self.index)


@dataclass(frozen=True)
class Lists:
    """Asks an IVF index: its quantizer is asked in its own way; then faiss scans each query's lists a photo at a time."""

    index: Any
    quantizer: IndexAdapter

    def fetch(self, queries: NDArray[np.float32], k: int, options: Options) -> Fetched:
        told = parameters([self.index], *_told(options))
        return self.scan(self.index, queries, k, self.chosen(queries, options), told)

    def chosen(self, queries: NDArray[np.float32], options: Options) -> Hits:
        """(Q, nprobe): the lists to visit. Of lists that tie, a flat quantizer gives the first."""
        nprobe = min(options.params.nprobe or self.index.nprobe, self.index.nlist)
        if isinstance(self.quantizer, Flat):
            return nearest(self.quantizer, queries, nprobe, Options())
        return self.quantizer.fetch(queries, nprobe, Options()).hits

    def scan(self, index: Any, queries: NDArray[np.float32], k: int, lists: Hits, told: Any) -> Fetched:
        """What is in the lists of `index`: this one, or a copy of it elsewhere."""
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
            told,
        )
        scores = _scores(distances, rows, self.metric)
        return Fetched(Hits(scores, rows), scores[:, -1])

    @cached_property
    def metric(self) -> Metric:
        return metric_of(self.index)


@dataclass(frozen=True)
class Transformed:
    """Asks what is behind vector transforms (PCA, OPQ): each query is transformed alone."""

    index: Any
    inner: IndexAdapter

    def fetch(self, queries: NDArray[np.float32], k: int, options: Options) -> Fetched:
        for step in self._chain:
            queries = np.concatenate([step.apply(queries[row : row + 1]) for row in range(len(queries))])
        return self.inner.fetch(queries, k, options)

    @cached_property
    def _chain(self) -> list[Any]:
        return transforms(self.index)


@dataclass(frozen=True)
class OneByOne:
    """Asks any other index for one query at a time, which costs graphs nothing: faiss walks them so."""

    index: Any

    def fetch(self, queries: NDArray[np.float32], k: int, options: Options) -> Fetched:
        told = parameters(self._layers, *_told(options))
        distances, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for row in range(len(queries)):
            one = slice(row, row + 1)
            self.index.search(queries[one], k, params=told, D=distances[one], I=rows[one])
        scores = _scores(distances, rows, self._metric)
        return Fetched(Hits(scores, rows), scores[:, -1])

    @cached_property
    def _metric(self) -> Metric:
        return metric_of(self.index)

    @cached_property
    def _layers(self) -> list[Any]:
        return layers(self.index)


def asking(index: Any, longest: float | None = None) -> IndexAdapter:
    """`longest` is the length of the longest vector in the index; None if it is not known."""
    if isinstance(index, faiss.IndexFlat):
        return Flat(index, longest)
    if isinstance(index, faiss.IndexPreTransform):
        return Transformed(index, asking(faiss.downcast_index(index.index)))
    # Fast-scan kernels take queries together, and round what they look up by all of them.
    if isinstance(index, faiss.IndexIVF) and not isinstance(index, faiss.IndexIVFFastScan):
        quantizer = faiss.downcast_index(index.quantizer)
        return Lists(index, Flat(quantizer) if isinstance(quantizer, faiss.IndexFlat) else OneByOne(quantizer))
    return OneByOne(index)


def nearest(
    asked: IndexAdapter, queries: NDArray[np.float32], k: int, options: Options, without: NDArray[np.int64] = NONE
) -> Hits:
    """The k best hits, ties for the last place given to the smallest rows; none is one of `without`, ascending."""

    def fetch(queries: NDArray[np.float32], k: int) -> Fetched:
        return asked.fetch(queries, k, options)

    return top_k(dropping(fetch, without), queries, k, asked.index.ntotal)


def _told(options: Options) -> tuple[SearchParams, Any]:
    return options.params, options.selector


def _scores(distances: NDArray[np.float32], rows: NDArray[np.int64], metric: Metric) -> NDArray[np.float32]:
    """Higher is nearer; -inf where there is no hit."""
    scores = distances if metric == "ip" else 0 - distances
    return np.where(rows < 0, np.float32(-np.inf), scores)
