"""SearchService, over gRPC."""
# ruff: noqa: ARG002, N802 (names and arguments of the methods are the contract's)

import asyncio
import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from vmmr.search.v1 import search_pb2, search_pb2_grpc

from search_svc.answer import Answerer
from search_svc.calibration import Calibration
from search_svc.label_pages import LabelPages
from search_svc.queries import MAX_NEIGHBOURS, Limits, Query, QueryReader
from search_svc.replies import Replies
from search_svc.searcher import Found
from search_svc.version import IndexVersion
from svckit.batcher import Batched, Batcher
from svckit.interceptor import deadline
from svckit.streams import Context

SERVICE = search_pb2.DESCRIPTOR.services_by_name["SearchService"].full_name

Reply = TypeVar("Reply")

_FEW_NEIGHBOURS = 64
"""As many take 0.2 ms, and with a vote 0.7; the way to a thread and back 0.1 to 0.2."""

_METRICS = {"ip": search_pb2.METRIC_INNER_PRODUCT, "l2": search_pb2.METRIC_L2}


class SearchService(search_pb2_grpc.SearchServiceServicer):
    """Answers from one index version; the batcher, over a Searcher, does the searching."""

    def __init__(
        self,
        version: IndexVersion,
        batcher: Batcher[Query, Found],
        *,
        tunable: frozenset[str],
        limits: Limits,
        on_partial: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_partial` is called for every reply that lacks shards."""
        self._answerer = Answerer(version)
        self._batcher = batcher
        self._reader = QueryReader(version, tunable, limits)
        self._replies = Replies(version)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="replies")
        self._pages = LabelPages(version)
        self._manifest = version.manifest
        self._on_partial = on_partial
        self._index = _index(version, limits)

    async def Search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:
        return await self._write(self._neighbours, await self._find(request, context))

    async def Classify(self, request: search_pb2.ClassifyRequest, context: Context) -> search_pb2.ClassifyResponse:
        found = await self._find(request, context)
        write = partial(self._classifications, fuse=request.fuse, min_confidence=request.min_confidence)
        return await self._write(write, found)

    async def GetIndex(self, request: search_pb2.GetIndexRequest, context: Context) -> search_pb2.GetIndexResponse:
        return self._index

    async def ListLabels(
        self, request: search_pb2.ListLabelsRequest, context: Context
    ) -> search_pb2.ListLabelsResponse:
        return self._pages.page(request)

    async def _find(
        self, request: search_pb2.SearchRequest | search_pb2.ClassifyRequest, context: Context
    ) -> Batched[Found]:
        end = deadline(context)
        return await self._batcher.submit(self._reader.read(request, end), deadline=end)

    async def _write(self, write: Callable[[Batched[Found]], Reply], found: Batched[Found]) -> Reply:
        """A few neighbours cost less than the way to a thread; tens of thousands would hold the event loop for a second."""
        if sum(len(each.rows) for each in found.outputs) <= _FEW_NEIGHBOURS:
            return write(found)
        return await asyncio.get_running_loop().run_in_executor(self._writer, write, found)

    def _neighbours(self, found: Batched[Found]) -> search_pb2.SearchResponse:
        reply = self._replies.search(found.outputs)
        reply.provenance.CopyFrom(self._provenance(found))
        reply.times.CopyFrom(_times(found))
        return reply

    def _classifications(
        self, found: Batched[Found], *, fuse: bool, min_confidence: float
    ) -> search_pb2.ClassifyResponse:
        started = time.perf_counter()
        cars = [found.outputs] if fuse else [[each] for each in found.outputs]
        answers = [self._answerer.answer(photos, min_confidence) for photos in cars]
        times = _times(found, vote_s=time.perf_counter() - started)
        reply = self._replies.classify(cars, answers)
        reply.provenance.CopyFrom(self._provenance(found))
        reply.times.CopyFrom(times)
        return reply

    def _provenance(self, found: Batched[Found]) -> search_pb2.Provenance:
        missing = max(each.missing for each in found.outputs)
        if missing:
            self._on_partial()
        return search_pb2.Provenance(
            model=self._manifest.model,
            index_version=self._manifest.version,
            shards_answered=len(self._manifest.shards) - missing,
            shards_total=len(self._manifest.shards),
        )


def _times(found: Batched[Found], vote_s: float = 0.0) -> search_pb2.SearchTimes:
    return search_pb2.SearchTimes(queue_ms=found.queue_ms, search_ms=found.run_ms, vote_ms=1e3 * vote_s)


def _index(version: IndexVersion, limits: Limits) -> search_pb2.GetIndexResponse:
    manifest = version.manifest
    index = search_pb2.Index(
        version=manifest.version,
        model=manifest.model,
        dimension=manifest.dimension,
        items=manifest.items,
        labels=manifest.labels,
        shards=len(manifest.shards),
        factory=manifest.factory,
        metric=_METRICS[manifest.metric],
        k=manifest.k,
        temperature=manifest.temperature,
        create_time=manifest.created,
        calibration=_calibration(version.calibration),
        **dataclasses.asdict(manifest.search),
    )
    allowed = search_pb2.QueryLimits(**dataclasses.asdict(limits), max_neighbours=MAX_NEIGHBOURS)
    return search_pb2.GetIndexResponse(index=index, limits=allowed)


def _calibration(fitted: Calibration | None) -> search_pb2.Calibration | None:
    if fitted is None:
        return None
    return search_pb2.Calibration(
        photos=fitted.photos,
        false_alarm_rate=fitted.false_alarm_rate,
        unknown_threshold=fitted.unknown_threshold,
    )
