"""Queries: from the messages of a call to vectors and how they are searched, or all that is wrong with the call."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vmmr import wire
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2

from search_svc.engine.engine import MOST_CANDIDATES
from search_svc.index.version import IndexVersion, SearchParams
from search_svc.live.view import View
from svckit.errors import Reason, ServiceError, Violation, rejected

MAX_NEIGHBOURS = 65536
"""Most neighbours in one call, all its queries together: some ten megabytes of reply."""
_LARGEST = {"nprobe": 65536, "ef_search": 65536, "rerank": 1000}
_FINGERPRINT_LENGTH = 64
# Beyond these, float32 scores lose what tells photos apart: they overflow, or are all zero.
_SQUARED_LENGTHS = (1e-12, 1e30)


@dataclass(frozen=True)
class Plan:
    """How queries are searched. Those of one plan can be searched together."""

    k: int
    params: SearchParams
    exact: bool
    filter: bytes = b""
    """A serialised Filter: what it lets through is a question to the view that answers. Empty: everything."""
    allow_partial: bool = False
    timeout_s: float | None = None
    """Seconds that the shards have; None: as many as they take."""


class Call:
    """The queries of one call, which are all answered by one view, even if they are searched in several batches."""

    def __init__(self, view: View) -> None:
        """`view` is the one that its queries were read for."""
        self._view = view
        self._begun = False

    def view(self, newest: View) -> View:
        """The one that answers: when the first of its queries is searched, the newest.

        Of the version that they were read for: with another come other defaults and limits, and maybe another model.
        """
        if not self._begun and newest.opened is self._view.opened:
            self._view = newest
        self._begun = True
        return self._view


@dataclass(frozen=True)
class Query:
    vector: NDArray[np.float32]  # (dimension,)
    plan: Plan
    deadline: float = math.inf
    """When its caller stops waiting, as a time of `time.monotonic`."""
    call: Call | None = None
    """None: it is answered by the newest view."""


@dataclass(frozen=True)
class Limits:
    """What queries may ask for."""

    max_queries: int
    max_k: int
    max_request_bytes: int
    max_shard_timeout_ms: int


class QueryReader:
    """Reads the queries that are asked of one index version, which may be any view of it."""

    def __init__(self, version: IndexVersion, tunable: frozenset[str], limits: Limits) -> None:
        self._manifest = version.manifest
        self._calibrated = version.calibration is not None
        self._tunable = tunable
        self._limits = limits

    def read(
        self, request: search_pb2.SearchRequest | search_pb2.ClassifyRequest, view: View, deadline: float | None = None
    ) -> list[Query]:
        """The queries of a call, which ends at `deadline`. Raises ServiceError, with everything that is wrong."""
        size = len(request.queries.data)  # protobuf copies the bytes each time they are asked for
        self._check_model(request.queries, size)
        options = request.options
        vectors, problem = self._vectors(request.queries, size)
        violations = [
            *([problem] if problem else ()),
            *self._option_violations(options, len(vectors)),
            *(view.filters.violations(options.filter) if options.HasField("filter") else ()),
            *self._confidence_violations(request),
        ]
        if violations:
            raise rejected(violations)
        plan = self._plan(options)
        end = math.inf if deadline is None else deadline
        call = Call(view)
        return [Query(vector, plan, end, call) for vector in vectors]

    def _plan(self, options: search_pb2.SearchOptions) -> Plan:
        defaults = self._manifest.search
        params = SearchParams(
            nprobe=options.nprobe or defaults.nprobe,
            ef_search=options.ef_search or defaults.ef_search,
            rerank=options.rerank or defaults.rerank,
        )
        filter_ = options.filter.SerializeToString(deterministic=True) if options.HasField("filter") else b""
        timeout_ms = options.shard_timeout_ms or self._limits.max_shard_timeout_ms
        k = options.k or self._manifest.k
        return Plan(k, params, options.exact, filter_, options.allow_partial, timeout_ms / 1e3)

    def _check_model(self, queries: embedding_pb2.Embeddings, size: int) -> None:
        expected, got = self._manifest.model, queries.model[:_FINGERPRINT_LENGTH]
        if size and queries.model != expected:
            raise ServiceError(
                Reason.MODEL_MISMATCH,
                f"the queries were embedded with model {got[:12] or '(none given)'}, the index with {expected[:12]} "
                f"({self._manifest.model_name}): embed them with the index's model, or serve an index built with theirs",
                metadata={"expected": expected, "got": got},
            )

    def _vectors(self, queries: embedding_pb2.Embeddings, size: int) -> tuple[NDArray[np.float32], Violation | None]:
        """`(Q, dimension)` from `size` bytes; or none, and what is wrong with them."""
        dimension, most = self._manifest.dimension, self._limits.max_queries
        count, rest = divmod(size, 4 * dimension)
        none = np.empty((0, dimension), np.float32)
        if size and queries.dimension != dimension:
            text = f"must be {dimension}, the dimension of the index, got {queries.dimension}"
            return none, Violation("queries.dimension", Reason.DIMENSION_MISMATCH, text)
        if not rest and not 1 <= count <= most:
            text = f"must be 1 to {most} queries, got {count}"
            return none, Violation("queries", Reason.INVALID_QUERY_COUNT, text)
        try:
            vectors = wire.unpack(queries)
            _check_lengths(vectors)
        except ValueError as error:
            return none, Violation("queries.data", Reason.MALFORMED_EMBEDDINGS, str(error))
        return vectors, None

    def _option_violations(self, options: search_pb2.SearchOptions, queries: int) -> Iterator[Violation]:
        k = options.k if options.HasField("k") else self._manifest.k
        if not 1 <= k <= self._limits.max_k:
            yield Violation("options.k", Reason.INVALID_K, f"must be 1 to {self._limits.max_k}, got {k}")
        elif queries * k > MAX_NEIGHBOURS:
            text = f"must be 1 to {MAX_NEIGHBOURS // queries} for {queries} queries, got {k}: a call finds at most "
            yield Violation("options.k", Reason.INVALID_K, f"{text}{MAX_NEIGHBOURS} neighbours")
        for name in (*_LARGEST, "shard_timeout_ms"):
            if options.HasField(name) and (problem := self._misplaced(name, getattr(options, name), k)):
                yield Violation(f"options.{name}", Reason.INVALID_SEARCH_PARAMETER, problem)

    def _confidence_violations(
        self, request: search_pb2.SearchRequest | search_pb2.ClassifyRequest
    ) -> Iterator[Violation]:
        wanted = request.min_confidence if isinstance(request, search_pb2.ClassifyRequest) else 0.0
        if not 0 <= wanted <= 1:
            yield Violation("min_confidence", Reason.INVALID_MIN_CONFIDENCE, f"must be 0 to 1, got {wanted:g}")
        elif wanted and not self._calibrated:
            text = "the index is not calibrated, so its confidences are shares of the vote"
            yield Violation("min_confidence", Reason.INVALID_MIN_CONFIDENCE, text)

    def _misplaced(self, name: str, value: int, k: int) -> str | None:
        """What is wrong with a search parameter."""
        if name in ("nprobe", "ef_search") and name not in self._tunable:
            return f"the index ({self._manifest.factory}) has no such parameter"
        largest = _LARGEST.get(name, self._limits.max_shard_timeout_ms)
        if not 1 <= value <= largest:
            return f"must be 1 to {largest}, got {value}"
        if name == "rerank" and value > (most := max(1, MOST_CANDIDATES // max(1, k))):
            return f"must be 1 to {most} for k = {k}, got {value}: a query has at most {MOST_CANDIDATES} candidates"
        return None


def _check_lengths(vectors: NDArray[np.float32]) -> None:
    """Raises ValueError if one has a length that would spoil scores."""
    squares = np.einsum("qd,qd->q", vectors, vectors)
    shortest, longest = _SQUARED_LENGTHS
    odd = np.flatnonzero((squares < shortest) | (squares > longest))
    if len(odd):
        raise ValueError(f"row {odd[0]} has length {squares[odd[0]] ** 0.5:.3g}, which no photo's embedding has")
