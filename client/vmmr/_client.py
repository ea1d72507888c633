"""The client for threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Literal, Self, TypeVar

import grpc

from vmmr import _calls, _flows
from vmmr._base import DEFAULTS, EVERYTHING, BaseClient, check_positive
from vmmr._batches import READ_AHEAD, Entry, Limits, Outcome, Packer, check_size, photos_of_car, read_entry
from vmmr._calls import Call, Page
from vmmr._deadlines import TimeLeft
from vmmr._flows import Flow
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
from vmmr._photos import Photo, PhotoSource, is_url, load, load_one_of, one_car, several
from vmmr._served import Info, LabelCount, ModelInfo
from vmmr._threads import Flows, blocking, result_of, run
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


class Client(BaseClient):
    """A client of both services. Any number of threads may share one; close it, or use it in a `with` block.

    Every method takes `timeout_s`, the deadline of the whole operation in seconds, fetching of URLs included; without
    it, the client's own applies. Within the deadline, a call is sent again while its service can't be reached, and when an
    overloaded service says so; nothing else is retried. What goes wrong with a call or a photo is raised as a `VmmrError`.

    `min_confidence`, where a method has it, is the confidence, 0 to 1, below which the verdict of an answer is "unsure".
    It needs a calibrated index.
    """

    _channel_module = grpc

    def identify(
        self,
        photo: PhotoSource,
        *,
        crop: Box | None = None,
        subject: Literal["whole", "main_car"] | None = None,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        timeout_s: float | None = None,
    ) -> Identification:
        """Return make, model and year of the car that a photo is of, or of what is within `crop`.

        By default the main car is looked for if the embedder's model has a detector, and the whole photo is looked at if it has
        none; `subject` asks for one of the two.
        """
        time_left = self._within(timeout_s)
        image = load(one_car(Photo(photo, crop, subject)), self._max_message_bytes, time_left)
        classify = partial(_calls.classify, options=options, min_confidence=min_confidence)
        return self._run(_flows.identify_car([image], classify), time_left)

    def identify_every_car(
        self,
        photo: PhotoSource,
        *,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        timeout_s: float | None = None,
    ) -> list[Identification]:
        """Return make, model and year of each car on a photo, the main one first.

        If no car is found, there is one identification, with `no_car_found`. Raise CallError with the reason NO_DETECTOR if
        the embedder's model has no detector.
        """
        time_left = self._within(timeout_s)
        image = load(Photo(photo, subject="every_car"), self._max_message_bytes, time_left)
        classify = partial(_calls.classify, options=options, min_confidence=min_confidence)
        return self._run(_flows.identify_every_car(image, classify), time_left)

    def identify_car(
        self,
        photos: Iterable[Photo | PhotoSource],
        *,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        timeout_s: float | None = None,
    ) -> Identification:
        """Return make, model and year of one car, from several photos of it.

        The photos go in one request. Raise ValueError if there are more than the services accept in one,
        MessageTooLargeError if they have too many bytes, and InvalidPhotoError, which names all bad photos, if any is bad.
        """
        time_left = self._within(timeout_s)
        limits = self._run(_flows.batch_limits(options, self._max_message_bytes), time_left)
        images = _load_all(photos_of_car(several(photos), limits), limits.bytes_in_photo, time_left)
        check_size(images, limits)
        classify = partial(_calls.classify, options=options, min_confidence=min_confidence, fuse=True)
        return self._run(_flows.identify_car(images, classify), time_left)

    def identify_many(
        self,
        photos: Iterable[Photo | PhotoSource],
        *,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        batch: int = 16,
        timeout_s: float | None = None,
    ) -> Iterator[Outcome]:
        """Yield one outcome for each photo, in order. A photo that fails has its error in `Outcome.error`.

        Photos are sent up to `batch` at a time, fewer if the services accept no more. While one batch is classified,
        one is embedded and one waits at the embedder, so that neither service waits for this program; threads go on with
        that while the caller is busy with outcomes. At most these three batches are in memory (one more for each of the
        client's `connections` beyond the first), including the one that is being read, so `photos` may be endless. Up to
        eight URLs are fetched side by side.

        `timeout_s` applies to each call, and not to URLs, which have their own. Raise only what goes wrong before the
        first photo, when the services are asked what they accept.
        """
        check_positive(batch=batch)
        limits = _flows.batch_limits(options, self._max_message_bytes, batch)
        classify = partial(_calls.classify, options=options, min_confidence=min_confidence)
        answer = partial(_flows.identify_batch, classify=classify)
        return self._in_batches(several(photos), limits, answer, self._per_call(timeout_s))

    def embed(self, photos: Iterable[Photo | PhotoSource], *, timeout_s: float | None = None) -> Embeddings:
        """Return one embedding for each photo, and for each car of a photo whose subject is "every_car", in one call.

        Raise InvalidPhotoError, which names all bad photos, if any is bad.
        """
        time_left = self._within(timeout_s)
        images = _load_all(several(photos), self._max_message_bytes, time_left)
        return self._run(_flows.value(_calls.embed(images)), time_left)

    def detect(
        self, photos: Iterable[Photo | PhotoSource], *, timeout_s: float | None = None
    ) -> list[tuple[Detection, ...]]:
        """Return the cars in each photo, the main one first, in one call. None are told of a photo in which none was found.

        Raise as `embed` does, and CallError with the reason NO_DETECTOR if the embedder's model has no detector.
        """
        time_left = self._within(timeout_s)
        images = _load_all(several(photos), self._max_message_bytes, time_left)
        return self._run(_flows.value(_calls.detect(images)), time_left)

    def search(
        self, embeddings: Embeddings, *, options: SearchOptions = DEFAULTS, timeout_s: float | None = None
    ) -> SearchResult:
        """Return the gallery photos nearest to each embedding."""
        return self._ask(_calls.search(embeddings, options), timeout_s)

    def classify(
        self,
        embeddings: Embeddings,
        *,
        options: SearchOptions = DEFAULTS,
        min_confidence: float = 0.0,
        fuse: bool = False,
        timeout_s: float | None = None,
    ) -> ClassifyResult:
        """Return make, model and year for each embedding; with `fuse`, for the one car that all of them show.

        An embedding of a photo without a car, as `embeddings.parts` says, is "unknown".
        """
        call = _calls.classify(embeddings, options=options, min_confidence=min_confidence, fuse=fuse)
        return self._ask(call, timeout_s)

    def info(self, *, timeout_s: float | None = None) -> Info:
        """Return which model and which index are served, and what they accept."""
        return self._run(_flows.info(), self._within(timeout_s))

    def model_info(self, *, timeout_s: float | None = None) -> ModelInfo:
        """Return which model the embedder serves, and what it accepts. The search service is not asked."""
        return self._ask(_calls.get_model(), timeout_s)

    def labels(self, *, timeout_s: float | None = None) -> Iterator[LabelCount]:
        """Yield the gallery's labels in alphabetical order, fetched a page at a time; `timeout_s` is for each page."""
        return self._paged(_calls.list_labels, timeout_s)

    def add_items(self, items: Sequence[Item], embeddings: Embeddings, *, timeout_s: float | None = None) -> AddResult:
        """Add items, or replace those with the same ids: all of them or none. Each item has one embedding, in the same order.

        An item without a `cut` gets that of its embedding (`embeddings.parts`).
        Adding the same items again changes nothing. All go in one request: no more than 10,000, nor more bytes than
        `max_message_bytes`. When this returns, they are on the service's disk, and soon searched: a search with
        `SearchOptions.min_sequence` waits for that. Raise ModelMismatchError if the embeddings are of another model than
        the index.
        """
        check_rows(len(items), embeddings)
        return self._ask(_calls.add_items(items, embeddings), timeout_s)

    def add_photos(
        self, photos: Iterable[NewItem], *, batch: int = 16, timeout_s: float | None = None
    ) -> Iterator[AddOutcome]:
        """Embed photos and add them to the gallery. Yield one outcome for each photo, in order.

        Batches, memory, errors and deadlines are as in `identify_many`. Each batch is added as a whole, or not at all. A
        photo that is added again is the same item unless it is given another id, so a run that was stopped can be
        repeated. If several photos have one id, any of them may be the one that stays. Before a batch is added, the gallery is searched
        for the nearest photo of each, so that copies can be told.
        """
        check_positive(batch=batch)
        limits = _flows.add_limits(self._max_message_bytes, batch)
        return self._in_batches(photos, limits, _flows.add_batch, self._per_call(timeout_s))

    def delete_items(
        self,
        item_ids: Sequence[str] | None = None,
        *,
        label: str | None = None,
        batch_id: str | None = None,
        timeout_s: float | None = None,
    ) -> DeleteResult:
        """Delete the items with these ids, with this label, or of this batch: give one of the three.

        Ids that are not there are passed over. When this returns, the items are gone for good. Up to 10,000 items are
        deleted all or none; more of a label or batch are deleted in parts of 10,000, so if it raises, some may be gone:
        call it again to delete the rest.
        """
        check_selector(item_ids, label, batch_id)
        call = _calls.delete_items(item_ids, label, batch_id)
        return self._ask(call, timeout_s)

    def get_item(self, item_id: str, *, timeout_s: float | None = None) -> Item:
        """Return the item with that id. Raise ItemNotFoundError if there is none."""
        return self._ask(_calls.get_item(item_id), timeout_s)

    def list_items(
        self,
        filter: Filter = EVERYTHING,  # noqa: A002  # as in SearchOptions
        *,
        batch_id: str = "",
        timeout_s: float | None = None,
    ) -> Iterator[Item]:
        """Yield the gallery's items in the order of their ids, fetched a page at a time; `timeout_s` is for each page."""
        return self._paged(partial(_calls.list_items, filter, batch_id), timeout_s)

    def compact(self, *, timeout_s: float = 3600.0) -> Compaction:
        """Have the service build a new index version of all that was written, and wait until it is served.

        The service goes on with it if nobody waits any more; searches and writes go on meanwhile. Raise CallError with the
        reason COMPACTION_RUNNING if one is under way already, with COMPACTION_FAILED if the version can't be built.
        """
        return self._ask(_calls.compact(), timeout_s)

    def versions(self, *, timeout_s: float | None = None) -> IndexVersions:
        """Return the index versions on the service's disk, and how much was written since the one that is served."""
        return self._ask(_calls.list_versions(), timeout_s)

    def close(self) -> None:
        """End the connections.

        Operations that other threads have under way end with a CallError, also between two of their calls;
        `identify_many` and `labels` raise RuntimeError at their next batch or page.
        """
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _in_batches(
        self,
        photos: Iterable[Photo | PhotoSource],
        asked: Flow[Limits],
        answer: Callable[..., Flow[list[T]]],
        time_left: TimeLeft,
    ) -> Iterator[T]:
        """Yield what `answer` makes of each batch, in order.

        `asked` finds out how large batches may be; `answer` takes the entries of a batch.
        """
        limits = self._run(asked, time_left)
        flows = Flows(self._connection, time_left, most=self._batches_at_once)
        running: deque[Future[list[T]]] = deque()
        try:
            for entries in _batches(photos, limits):
                self._connection.check_open()
                running.append(flows.start(answer(entries)))
                while len(running) == self._batches_at_once or (running and running[0].done()):
                    yield from result_of(running.popleft())
            while running:
                yield from result_of(running.popleft())
        finally:
            flows.end()

    def _paged(self, ask: Callable[[str], Call[Page[T]]], timeout_s: float | None) -> Iterator[T]:
        """Yield the entries of all pages. `ask` makes the call for the page with that token."""
        time_left = self._per_call(timeout_s)
        token: str | None = ""
        while token is not None:
            page = self._run(_flows.value(ask(token)), time_left)
            yield from page.entries
            token = page.next_token

    def _ask(self, call: Call[T], timeout_s: float | None) -> T:
        return self._run(_flows.value(call), self._within(timeout_s))

    def _run(self, flow: Flow[T], time_left: TimeLeft) -> T:
        self._connection.check_open()
        return run(flow, blocking(self._connection, time_left))


def _batches(photos: Iterable[Photo | PhotoSource], limits: Limits) -> Iterator[list[Entry]]:
    packer = Packer(limits)
    for entry in _read(photos, partial(read_entry, limits=limits), lambda: packer.read_ahead):
        yield from packer.add(entry)
    yield from packer.rest()


def _load_all(photos: Iterable[Photo | PhotoSource], max_bytes: int, time_left: TimeLeft) -> list[Image]:
    return list(_read(photos, partial(load_one_of, max_bytes=max_bytes, time_left=time_left), lambda: READ_AHEAD))


def _read(
    photos: Iterable[Photo | PhotoSource], read: Callable[[int, Photo | PhotoSource], T], ahead: Callable[[], int]
) -> Iterator[T]:
    """Yield what `read` makes of each photo, in order. URLs among the next `ahead()` photos are fetched side by side."""
    numbered = enumerate(photos)
    fetchers = ThreadPoolExecutor(READ_AHEAD, "vmmr-fetch")
    try:
        while reading := [_start(fetchers, read, *each) for each in islice(numbered, ahead())]:
            for result in reading:
                yield result()
    finally:
        fetchers.shutdown(wait=False, cancel_futures=True)


def _start(
    fetchers: ThreadPoolExecutor,
    read: Callable[[int, Photo | PhotoSource], T],
    position: int,
    photo: Photo | PhotoSource,
) -> Callable[[], T]:
    if is_url(photo):
        return fetchers.submit(read, position, photo).result
    # Read it before the next photo is asked for: a generator may then close the file, or reuse the buffer.
    content = read(position, photo)
    return lambda: content
