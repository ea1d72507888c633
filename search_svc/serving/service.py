"""SearchService over gRPC: queries are answered with neighbours or with votes; the index and its labels are described."""
# ruff: noqa: ARG002, N802 (names and arguments of the methods are the contract's)

import asyncio
import dataclasses
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from vmmr.search.v1 import search_pb2, search_pb2_grpc

from search_svc.live.live_gallery import LiveGallery
from search_svc.live.view import Opened, View
from search_svc.serving.label_pages import LabelPages
from search_svc.serving.queries import MAX_NEIGHBOURS, Limits, Query, QueryReader
from search_svc.serving.replies import Replies
from search_svc.serving.searcher import SearchOutcome
from search_svc.voting.answer import Answer, Answerer
from search_svc.voting.calibration import Calibration
from search_svc.voting.neighbours import QueryNeighbours
from svckit import stages
from svckit.batcher import Batched, Batcher
from svckit.interceptor import deadline
from svckit.streams import Context

SERVICE = search_pb2.DESCRIPTOR.services_by_name["SearchService"].full_name

Reply = TypeVar("Reply", search_pb2.SearchResponse, search_pb2.ClassifyResponse)
LabelMessages = dict[str, search_pb2.Label]
CountAnswers = Callable[[Sequence[Sequence[QueryNeighbours]], Sequence[Answer | None], tuple[float, ...] | None], None]
"""See AnswerMetrics.count."""

_FEW_NEIGHBOURS = 64
"""A reply with so many neighbours takes 0.2 ms, and with a vote 0.7; a thread and back takes 0.1 to 0.2."""

_METRICS = {"ip": search_pb2.METRIC_INNER_PRODUCT, "l2": search_pb2.METRIC_L2}


class ReplyContext:
    """The answerer and the writer of replies of one view. It holds no reference to the view."""

    def __init__(self, view: View, messages: LabelMessages) -> None:
        """`messages` are the messages of labels, which all views of a version share; those of new labels are added to it."""
        self.answerer = Answerer(view)
        self.replies = Replies(view, messages)
        self._pages: LabelPages | None = None

    def label_pages(self, view: View) -> LabelPages:
        """Return the pages of the labels of `view`, the view of this context; they are made when first asked for."""
        if self._pages is None:
            self._pages = LabelPages(view)
        return self._pages


class SearchService(search_pb2_grpc.SearchServiceServicer):
    """Answers queries from a gallery, through a batcher over a Searcher.

    A reply is written from the view that was searched. The contexts of views are held weakly, and refer to no view, since a
    version is closed when the last view of it is gone.
    """

    def __init__(
        self,
        gallery: LiveGallery,
        batcher: Batcher[Query, SearchOutcome],
        *,
        limits: Limits,
        on_partial: Callable[[], None] = lambda: None,
        count: CountAnswers = lambda *_: None,
        problem: Callable[[], str] = lambda: "",
        lost: Callable[[], int] = lambda: 0,
    ) -> None:
        """`on_partial` is called for every reply that lacks shards, `count` with the answers of every call of Classify.

        `problem` returns why the gallery does not hold what the index does, `lost` how many entries of the journal are lost.
        """
        self._gallery = gallery
        self._batcher = batcher
        self._limits = limits
        self._on_partial = on_partial
        self._count = count
        self._problem = problem
        self._lost = lost
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="replies")
        self._messages: weakref.WeakKeyDictionary[Opened, LabelMessages] = weakref.WeakKeyDictionary()
        self._contexts: weakref.WeakKeyDictionary[View, ReplyContext] = weakref.WeakKeyDictionary()

    async def Search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:
        return await self._reply(_neighbours, await self._find(request, context))

    async def Classify(self, request: search_pb2.ClassifyRequest, context: Context) -> search_pb2.ClassifyResponse:
        found = await self._find(request, context)
        no_car = [cut.no_car_found for cut in request.cuts]
        count = partial(self._count_answers, found, filtered=request.options.HasField("filter"))
        write = partial(
            _classifications, fuse=request.fuse, min_confidence=request.min_confidence, no_car=no_car, count=count
        )
        return await self._reply(write, found)

    async def GetIndex(self, request: search_pb2.GetIndexRequest, context: Context) -> search_pb2.GetIndexResponse:
        return _index(self._gallery.view, self._limits, self._problem(), self._lost())

    async def ListLabels(
        self, request: search_pb2.ListLabelsRequest, context: Context
    ) -> search_pb2.ListLabelsResponse:
        view = self._gallery.view
        return self._context(view).label_pages(view).page(request)

    async def _find(
        self, request: search_pb2.SearchRequest | search_pb2.ClassifyRequest, context: Context
    ) -> Batched[SearchOutcome]:
        end = deadline(context)
        await self._gallery.reach(request.options.min_sequence, end)
        view = self._gallery.view
        reader = QueryReader(view.opened.version, view.opened.engine.tunable, self._limits)
        return await self._batcher.submit(reader.read(request, view, end), deadline=end)

    async def _reply(
        self, write: Callable[[ReplyContext, Batched[SearchOutcome]], Reply], found: Batched[SearchOutcome]
    ) -> Reply:
        """Write a short reply here, and a long one in a thread: tens of thousands of neighbours would block for a second."""
        view, missing = found.outputs[0].view, max(each.missing for each in found.outputs)
        if missing:
            self._on_partial()
        context = self._context(view)
        if sum(len(each.neighbours.rows) for each in found.outputs) <= _FEW_NEIGHBOURS:
            reply = write(context, found)
        else:
            # In this call's context, for the stages that are written down there.
            written = partial(copy_context().run, write, context, found)
            reply = await asyncio.get_running_loop().run_in_executor(self._writer, written)
        reply.provenance.CopyFrom(_provenance(view, missing))
        return reply

    def _count_answers(
        self,
        found: Batched[SearchOutcome],
        cars: Sequence[Sequence[QueryNeighbours]],
        answers: Sequence[Answer | None],
        *,
        filtered: bool,
    ) -> None:
        """Count the answers. Queries are comparable with each other if the whole gallery was searched."""
        fitted = found.outputs[0].view.calibration
        whole = not filtered and not any(each.missing for each in found.outputs)
        self._count(cars, answers, (fitted.nearest if fitted else ()) if whole else None)

    def _context(self, view: View) -> ReplyContext:
        context = self._contexts.get(view)
        if context is None:
            context = self._contexts[view] = ReplyContext(view, self._messages.setdefault(view.opened, {}))
        return context


def _neighbours(context: ReplyContext, found: Batched[SearchOutcome]) -> search_pb2.SearchResponse:
    reply = context.replies.search(_photos(found))
    reply.times.CopyFrom(_times(found))
    return reply


def _classifications(
    context: ReplyContext,
    found: Batched[SearchOutcome],
    *,
    fuse: bool,
    min_confidence: float,
    no_car: Sequence[bool],
    count: Callable[[Sequence[Sequence[QueryNeighbours]], Sequence[Answer | None]], None],
) -> search_pb2.ClassifyResponse:
    """Answer the queries, and have the answers counted.

    `no_car` says in which of their photos no car was found; empty: it is not known of any.
    """
    started = time.monotonic()
    photos = _photos(found)
    if any(no_car):
        pairs = zip(photos, no_car, strict=True)
        photos = [dataclasses.replace(photo, no_car_found=without) for photo, without in pairs]
    cars = [photos] if fuse else [[photo] for photo in photos]
    answers = [context.answerer.answer(car, min_confidence) for car in cars]
    ended = time.monotonic()
    count(cars, answers)
    stages.add("vote", started, ended)
    times = _times(found, vote_s=ended - started)
    reply = context.replies.classify(cars, answers)
    reply.times.CopyFrom(times)
    return reply


def _photos(found: Batched[SearchOutcome]) -> list[QueryNeighbours]:
    return [each.neighbours for each in found.outputs]


def _provenance(view: View, missing: int) -> search_pb2.Provenance:
    manifest = view.manifest
    return search_pb2.Provenance(
        model=manifest.model,
        index_version=manifest.version,
        journal_sequence=view.sequence,
        shards_answered=len(manifest.shards) - missing,
        shards_total=len(manifest.shards),
    )


def _times(found: Batched[SearchOutcome], vote_s: float = 0.0) -> search_pb2.SearchTimes:
    return search_pb2.SearchTimes(queue_ms=found.queue_ms, search_ms=found.run_ms, vote_ms=1e3 * vote_s)


def _index(view: View, limits: Limits, problem: str, lost: int) -> search_pb2.GetIndexResponse:
    manifest = view.manifest
    index = search_pb2.Index(
        version=manifest.version,
        model=manifest.model,
        dimension=manifest.dimension,
        items=view.size,
        labels=view.labels,
        delta_items=view.written.live_items if view.written else 0,
        journal_sequence=view.sequence,
        problem=problem,
        lost_entries=lost,
        shards=len(manifest.shards),
        factory=manifest.factory,
        metric=_METRICS[manifest.metric],
        k=manifest.k,
        temperature=manifest.temperature,
        create_time=manifest.created,
        calibration=_calibration(view.calibration),
        cuts=search_pb2.CutCounts(**dataclasses.asdict(view.cuts)),
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
