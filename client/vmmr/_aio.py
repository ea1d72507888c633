"""The client for asyncio."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import grpc.aio

from vmmr import _calls, _flows
from vmmr._base import DEFAULTS, EVERYTHING, BaseClient, check_positive
from vmmr._batches import READ_AHEAD, Entry, Limits, Outcome, Packer, check_size, photos_of_car, read_entry
from vmmr._calls import Call, Page
from vmmr._connection import closed_during_call, new_request_id, reply_to
from vmmr._deadlines import TimeLeft
from vmmr._errors import CallError, VmmrError
from vmmr._flows import Flow, Reply
from vmmr._gallery import (
    AddOutcome,
    AddResult,
    Compaction,
    DeleteResult,
    IndexVersions,
    NewItem,
    check_rows,
    check_selector,
)
from vmmr._photos import Photo, PhotoSource, is_in_memory, is_url, load, load_one_of, one_car, several
from vmmr._retries import Retries
from vmmr._served import Info, LabelCount, ModelInfo
from vmmr._types import (
    Box,
    ClassifyResult,
    Detection,
    Embeddings,
    Filter,
    Identification,
    Image,
    Item,
    SearchOptions,
    SearchResult,
)

T = TypeVar("T")
P = TypeVar("P", bound=Photo | PhotoSource)


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same methods, awaited. It belongs to the event loop that it was first used in.

    In another loop, such as that of a second `asyncio.run`, it raises RuntimeError. Files and URLs are read in threads of the loop's
    default executor, and don't block the loop.
    """

    _channel_module = grpc.aio
    _loop: asyncio.AbstractEventLoop | None = None
    """The event loop that it was first used in."""

    async def identify(
        self,
        photo: PhotoSource,
        *,
        crop: Box | None = None,
        subject: Literal["whole", "main_car"] | None = None,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        timeout_s: float | None = None,
    ) -> Identification:
        """See `Client.identify`."""
        time_left = self._within(timeout_s)
        image = await self._load(one_car(Photo(photo, crop, subject)), time_left)
        classify = partial(_calls.classify, options=options, min_confidence=min_confidence)
        return await self._run(_flows.identify_car([image], classify), time_left)

    async def identify_every_car(
        self,
        photo: PhotoSource,
        *,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        timeout_s: float | None = None,
    ) -> list[Identification]:
        """See `Client.identify_every_car`."""
        time_left = self._within(timeout_s)
        image = await self._load(Photo(photo, subject="every_car"), time_left)
        classify = partial(_calls.classify, options=options, min_confidence=min_confidence)
        return await self._run(_flows.identify_every_car(image, classify), time_left)

    async def identify_car(
        self,
        photos: Iterable[Photo | PhotoSource],
        *,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        timeout_s: float | None = None,
    ) -> Identification:
        """See `Client.identify_car`."""
        time_left = self._within(timeout_s)
        limits = await self._run(_flows.batch_limits(options, self._max_message_bytes), time_left)
        images = await _load_all(photos_of_car(several(photos), limits), limits.bytes_in_photo, time_left)
        check_size(images, limits)
        classify = partial(_calls.classify, options=options, min_confidence=min_confidence, fuse=True)
        return await self._run(_flows.identify_car(images, classify), time_left)

    def identify_many(
        self,
        photos: Iterable[Photo | PhotoSource] | AsyncIterable[Photo | PhotoSource],
        *,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        batch: int = 16,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Outcome]:
        """See `Client.identify_many`. Takes asynchronous iterables too."""
        check_positive(batch=batch)
        source = photos if isinstance(photos, AsyncIterable) else _asynchronous(several(photos))
        limits = _flows.batch_limits(options, self._max_message_bytes, batch)
        classify = partial(_calls.classify, options=options, min_confidence=min_confidence)
        answer = partial(_flows.identify_batch, classify=classify)
        return self._in_batches(source, limits, answer, self._per_call(timeout_s))

    async def embed(self, photos: Iterable[Photo | PhotoSource], *, timeout_s: float | None = None) -> Embeddings:
        """See `Client.embed`."""
        time_left = self._within(timeout_s)
        images = await _load_all(several(photos), self._max_message_bytes, time_left)
        return await self._run(_flows.value(_calls.embed(images)), time_left)

    async def detect(
        self, photos: Iterable[Photo | PhotoSource], *, timeout_s: float | None = None
    ) -> list[tuple[Detection, ...]]:
        """See `Client.detect`."""
        time_left = self._within(timeout_s)
        images = await _load_all(several(photos), self._max_message_bytes, time_left)
        return await self._run(_flows.value(_calls.detect(images)), time_left)

    async def search(
        self, embeddings: Embeddings, *, options: SearchOptions = DEFAULTS, timeout_s: float | None = None
    ) -> SearchResult:
        """See `Client.search`."""
        return await self._ask(_calls.search(embeddings, options), timeout_s)

    async def classify(
        self,
        embeddings: Embeddings,
        *,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        fuse: bool = False,
        timeout_s: float | None = None,
    ) -> ClassifyResult:
        """See `Client.classify`."""
        call = _calls.classify(embeddings, options=options, min_confidence=min_confidence, fuse=fuse)
        return await self._ask(call, timeout_s)

    async def info(self, *, timeout_s: float | None = None) -> Info:
        """See `Client.info`."""
        return await self._run(_flows.info(), self._within(timeout_s))

    async def model_info(self, *, timeout_s: float | None = None) -> ModelInfo:
        """See `Client.model_info`."""
        return await self._ask(_calls.get_model(), timeout_s)

    def labels(self, *, timeout_s: float | None = None) -> AsyncIterator[LabelCount]:
        """See `Client.labels`."""
        return self._paged(_calls.list_labels, timeout_s)

    async def add_items(
        self, items: Sequence[Item], embeddings: Embeddings, *, timeout_s: float | None = None
    ) -> AddResult:
        """See `Client.add_items`."""
        check_rows(len(items), embeddings)
        return await self._ask(_calls.add_items(items, embeddings), timeout_s)

    def add_photos(
        self, photos: Iterable[NewItem] | AsyncIterable[NewItem], *, batch: int = 16, timeout_s: float | None = None
    ) -> AsyncIterator[AddOutcome]:
        """See `Client.add_photos`. Takes asynchronous iterables too."""
        check_positive(batch=batch)
        source = photos if isinstance(photos, AsyncIterable) else _asynchronous(photos)
        limits = _flows.add_limits(self._max_message_bytes, batch)
        return self._in_batches(source, limits, _flows.add_batch, self._per_call(timeout_s))

    async def delete_items(
        self,
        item_ids: Sequence[str] | None = None,
        *,
        label: str | None = None,
        batch_id: str | None = None,
        timeout_s: float | None = None,
    ) -> DeleteResult:
        """See `Client.delete_items`."""
        check_selector(item_ids, label, batch_id)
        call = _calls.delete_items(item_ids, label, batch_id)
        return await self._ask(call, timeout_s)

    async def get_item(self, item_id: str, *, timeout_s: float | None = None) -> Item:
        """See `Client.get_item`."""
        return await self._ask(_calls.get_item(item_id), timeout_s)

    def list_items(
        self,
        filter: Filter = EVERYTHING,  # noqa: A002  # as in SearchOptions
        *,
        batch_id: str = "",
        timeout_s: float | None = None,
    ) -> AsyncIterator[Item]:
        """See `Client.list_items`."""
        return self._paged(partial(_calls.list_items, filter, batch_id), timeout_s)

    async def compact(self, *, timeout_s: float = 3600.0) -> Compaction:
        """See `Client.compact`."""
        return await self._ask(_calls.compact(), timeout_s)

    async def versions(self, *, timeout_s: float | None = None) -> IndexVersions:
        """See `Client.versions`."""
        return await self._ask(_calls.list_versions(), timeout_s)

    async def close(self) -> None:
        """End the connections. See `Client.close`. Raise RuntimeError if the client belongs to another loop that is still open."""
        if self._loop is not None and self._loop.is_closed():
            # The loop took the connections with it.
            self._connection.closed = True
            return
        self._check_loop()
        await asyncio.gather(*self._connection.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _in_batches(
        self,
        photos: AsyncIterable[Photo | PhotoSource],
        asked: Flow[Limits],
        answer: Callable[..., Flow[list[T]]],
        time_left: TimeLeft,
    ) -> AsyncIterator[T]:
        """Yield what `answer` makes of each batch, in order.

        `asked` finds out how large batches may be; `answer` takes the entries of a batch.
        """
        limits = await self._run(asked, time_left)
        running: deque[asyncio.Task[list[T]]] = deque()
        try:
            async with aclosing(_batches(photos, limits)) as batches:
                async for entries in batches:
                    self._connection.check_open()
                    running.append(asyncio.create_task(self._drive(answer(entries), time_left)))
                    while len(running) == self._batches_at_once or (running and running[0].done()):
                        for outcome in await _oldest(running):
                            yield outcome
            while running:
                for outcome in await _oldest(running):
                    yield outcome
        finally:
            for task in running:
                task.cancel()

    async def _paged(self, ask: Callable[[str], Call[Page[T]]], timeout_s: float | None) -> AsyncIterator[T]:
        """Yield the entries of all pages. `ask` makes the call for the page with that token."""
        time_left = self._per_call(timeout_s)
        token: str | None = ""
        while token is not None:
            page = await self._run(_flows.value(ask(token)), time_left)
            for entry in page.entries:
                yield entry
            token = page.next_token

    async def _load(self, photo: Photo, time_left: TimeLeft) -> Image:
        return await _loaded(photo, partial(load, max_bytes=self._max_message_bytes, time_left=time_left))

    async def _ask(self, call: Call[T], timeout_s: float | None) -> T:
        return await self._run(_flows.value(call), self._within(timeout_s))

    async def _run(self, flow: Flow[T], time_left: TimeLeft) -> T:
        self._connection.check_open()
        self._check_loop()
        return await self._drive(flow, time_left)

    def _check_loop(self) -> None:
        """Raise RuntimeError unless this is the event loop that the client belongs to."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "this AsyncClient belongs to the event loop that it was first used in, and this is another: make an AsyncClient in "
                "each loop, that is in each asyncio.run(), or use vmmr.Client, which any thread may use"
            )

    async def _drive(self, flow: Flow[T], time_left: TimeLeft) -> T:
        request_id = new_request_id()
        try:
            call = next(flow)
            while True:
                try:
                    reply = await self._send_patiently(call, request_id, time_left)
                except VmmrError as error:
                    call = flow.throw(error)
                else:
                    call = flow.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _send_patiently(self, call: Call[Any], request_id: str, time_left: TimeLeft) -> Reply[Any]:
        """Make a call, and make it again while its service can't be reached or asks to wait, for as long as there is time."""
        retries = Retries(time_left(), repeatable=call.repeatable, reconnect_s=self._connection.reconnect_s)
        while True:
            try:
                return await self._send(call, request_id, time_left())
            except CallError as error:
                pause_s = retries.pause_s(error)
                if retries.attempts == 1:
                    await asyncio.to_thread(self._connection.check_tls, call, error)
                await asyncio.sleep(pause_s)

    async def _send(self, call: Call[Any], request_id: str, timeout_s: float) -> Reply[Any]:
        method = self._connection.method(call)
        sent = perf_counter()
        try:
            with self._connection.calling(call, request_id) as metadata:
                message = await method(call.request, timeout=timeout_s, metadata=metadata)
        except asyncio.CancelledError:
            # grpc.aio cancels the tasks of a channel that is closed, as if they themselves had been cancelled.
            if self._connection.closed and not _is_cancelled():
                raise closed_during_call() from None
            raise
        return reply_to(call, message, perf_counter() - sent, request_id)


async def _oldest(running: deque[asyncio.Task[T]]) -> T:
    """Wait for the oldest task, then take it out. Until then it stays among those that are cancelled if the caller leaves."""
    result = await running[0]
    running.popleft()
    return result


async def _batches(photos: AsyncIterable[Photo | PhotoSource], limits: Limits) -> AsyncGenerator[list[Entry], None]:
    packer = Packer(limits)
    read = partial(read_entry, limits=limits)
    async with aclosing(_read(photos, read, lambda: packer.read_ahead)) as entries:
        async for entry in entries:
            for batch in packer.add(entry):
                yield batch
    for batch in packer.rest():
        yield batch


async def _load_all(photos: Iterable[Photo | PhotoSource], max_bytes: int, time_left: TimeLeft) -> list[Image]:
    read = partial(load_one_of, max_bytes=max_bytes, time_left=time_left)
    async with aclosing(_read(_asynchronous(photos), read, lambda: READ_AHEAD)) as images:
        return [image async for image in images]


async def _read(
    photos: AsyncIterable[Photo | PhotoSource], read: Callable[[int, Photo | PhotoSource], T], ahead: Callable[[], int]
) -> AsyncGenerator[T, None]:
    """Yield what `read` makes of each photo, in order. URLs among the next `ahead()` photos are fetched side by side."""
    position = 0
    reading: deque[asyncio.Future[T]] = deque()
    try:
        async for photo in photos:
            reading.append(asyncio.ensure_future(_loaded(photo, partial(read, position))))
            position += 1
            if not is_url(photo):
                # Read it before the next photo is asked for: a generator may then close the file, or reuse the buffer.
                await reading[-1]
            if len(reading) >= ahead():
                while reading:
                    yield await reading.popleft()
        while reading:
            yield await reading.popleft()
    finally:
        for task in reading:
            task.cancel()


async def _loaded(photo: P, read: Callable[[P], T]) -> T:
    """Return what `read` makes of the photo. Call it in a thread unless the photo is in memory already."""
    return read(photo) if is_in_memory(photo) else await asyncio.to_thread(read, photo)


async def _asynchronous(photos: Iterable[T]) -> AsyncIterator[T]:
    for photo in photos:
        yield photo


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
