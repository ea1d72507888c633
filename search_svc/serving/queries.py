"""Reads queries: from the message of a call to vectors and the plan of their search, or to all that is wrong with the call."""

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
from search_svc.live.filters import Filter
from search_svc.live.view import View
from search_svc.serving.cut_messages import read_cut
from search_svc.serving.embedding_checks import check_lengths, check_model, dimension_violation
from svckit.access import callers
from svckit.access.quotas import check_k
from svckit.errors import Reason, Violation, rejected

MAX_NEIGHBOURS = 65536
"""Most neighbours in one call, all its queries together: some ten megabytes of reply."""
_LARGEST = {"nprobe": 65536, "ef_search": 65536, "rerank": 1000}


@dataclass(frozen=True)
class Plan:
    """The way in which a query is searched. Queries with equal plans can be searched together."""

    k: int
    params: SearchParams
    exact: bool
    filter: Filter | None = None
    """None: all photos. Which labels a filter lets through is decided by the view that answers."""
    allow_partial: bool = False
    timeout_s: float | None = None
    """Seconds that the shards have; None: no limit."""


class Call:
    """The queries of one call. One view answers all of them, even if they are searched in several batches."""

    def __init__(self, view: View) -> None:
        """`view` is the view that the queries were read for."""
        self._view = view
        self._begun = False

    def view(self, newest: View) -> View:
        """Return the view that answers: the newest at the time when the first of the queries is searched.

        If another version has been switched to meanwhile, it is the view that they were read for: with the version come
        other defaults and limits, and maybe another model.
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
    """When the caller stops waiting, as a time of `time.monotonic`."""
    call: Call | None = None
    """None: the newest view answers."""
    means: bool = True
    """Whether to compare with the means of the neighbours' labels, which count in a vote."""


@dataclass(frozen=True)
class Limits:
    """The most that queries may ask for."""

    max_queries: int
    max_k: int
    max_request_bytes: int
    max_shard_timeout_ms: int


class QueryReader:
    """Reads queries for one index version, whichever view of it answers them."""

    def __init__(self, version: IndexVersion, tunable: frozenset[str], limits: Limits) -> None:
        self._manifest = version.manifest
        self._calibrated = version.calibration is not None
        self._tunable = tunable
        self._limits = limits

    def read(
        self, request: search_pb2.SearchRequest | search_pb2.ClassifyRequest, view: View, deadline: float | None = None
    ) -> list[Query]:
        """Return the queries of a call, which ends at `deadline`.

        Raise ServiceError, with everything that is wrong, or if they find more neighbours than the caller may have.
        """
        size = len(request.queries.data)  # protobuf copies the bytes each time they are asked for
        if size:
            check_model(request.queries, self._manifest, what="queries")
        options = request.options
        vectors, problem = self._vectors(request.queries, size)
        wanted = Filter.of(options.filter)
        violations = [
            *([problem] if problem else ()),
            *self._option_violations(options, len(vectors)),
            *(view.filters.violations(wanted) if wanted else ()),
            *self._confidence_violations(request),
            *_cut_violations(request, len(vectors)),
        ]
        if violations:
            raise rejected(violations)
        plan = self._plan(options, wanted)
        check_k(callers.current.get(), plan.k)  # which the index says if the request does not
        end = math.inf if deadline is None else deadline
        call = Call(view)
        votes = isinstance(request, search_pb2.ClassifyRequest)
        return [Query(vector, plan, end, call, means=votes) for vector in vectors]

    def _plan(self, options: search_pb2.SearchOptions, wanted: Filter | None) -> Plan:
        defaults = self._manifest.search
        params = SearchParams(
            nprobe=options.nprobe or defaults.nprobe,
            ef_search=options.ef_search or defaults.ef_search,
            rerank=options.rerank or defaults.rerank,
        )
        timeout_ms = options.shard_timeout_ms or self._limits.max_shard_timeout_ms
        k = options.k or self._manifest.k
        return Plan(k, params, options.exact, wanted, options.allow_partial, timeout_ms / 1e3)

    def _vectors(self, queries: embedding_pb2.Embeddings, size: int) -> tuple[NDArray[np.float32], Violation | None]:
        """Return vectors (Q, dimension), from `size` bytes, and None; or none of them, and what is wrong."""
        dimension, most = self._manifest.dimension, self._limits.max_queries
        count, rest = divmod(size, 4 * dimension)
        none = np.empty((0, dimension), np.float32)
        if size and (violation := dimension_violation(queries, self._manifest, "queries")):
            return none, violation
        if not rest and not 1 <= count <= most:
            text = f"must be 1 to {most} queries, got {count}"
            return none, Violation("queries", Reason.INVALID_QUERY_COUNT, text)
        try:
            vectors = wire.unpack(queries)
            check_lengths(vectors)
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
            if options.HasField(name) and (problem := self._parameter_problem(name, getattr(options, name), k)):
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

    def _parameter_problem(self, name: str, value: int, k: int) -> str | None:
        """Return what is wrong with a search parameter, or None."""
        if name in ("nprobe", "ef_search") and name not in self._tunable:
            return f"the index ({self._manifest.factory}) has no such parameter"
        largest = _LARGEST.get(name, self._limits.max_shard_timeout_ms)
        if not 1 <= value <= largest:
            return f"must be 1 to {largest}, got {value}"
        if name == "rerank" and value > (most := max(1, MOST_CANDIDATES // max(1, k))):
            return f"must be 1 to {most} for k = {k}, got {value}: a query has at most {MOST_CANDIDATES} candidates"
        return None


def _cut_violations(
    request: search_pb2.SearchRequest | search_pb2.ClassifyRequest, queries: int
) -> Iterator[Violation]:
    """Yield what is wrong with the cuts. Without good queries nothing is: they are not looked at, for there may be millions."""
    if not isinstance(request, search_pb2.ClassifyRequest) or not request.cuts or not queries:
        return
    if len(request.cuts) != queries:
        text = f"must be one for each of the {queries} queries, or none at all, got {len(request.cuts)}"
        yield Violation("cuts", Reason.INVALID_CUTS, text)
        return
    for place, cut in enumerate(request.cuts):
        if problem := read_cut(cut).problem:
            yield Violation(f"cuts[{place}]", Reason.INVALID_CUTS, problem)
