"""The client for threads."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar

import grpc

from vmmr import _calls, _flows
from vmmr._base import BaseClient, check_positive
from vmmr._batches import READ_AHEAD, Entry, Limits, Outcome, Packer, read_entry
from vmmr._deadlines import TimeLeft
from vmmr._flows import Flow
from vmmr._photos import Photo, PhotoSource, is_url, load, several
from vmmr._threads import InFlight, Running, blocking
from vmmr._types import (
    Box,
    ClassifyResult,
    Embeddings,
    Identification,
    Info,
    LabelCount,
    SearchOptions,
    SearchResult,
)

T = TypeVar("T")

_DEFAULTS = SearchOptions()


class Client(BaseClient):
    """Asks the two services. One client may be shared by any number of threads; close it, or use it with `with`.

    Every method takes `timeout_s`, the deadline of the whole operation, URLs included; without it, the client's own
    applies. A
    service that can't be reached is tried again a few times within the deadline; nothing else is. What goes wrong is
    raised as a `VmmrError`.
    """

    _channel_module = grpc

    def identify(
        self,
        photo: PhotoSource,
        *,
        crop: Box | None = None,
        options: SearchOptions = _DEFAULTS,
        timeout_s: float | None = None,
    ) -> Identification:
        """Make, model and year of the car on a photo, or on the part of it within `crop`."""
        time_left = self._within(timeout_s)
        image = load(Photo(photo, crop), self._max_message_bytes, time_left)
        return self._run(_flows.identify_one(image, options), time_left)

    def identify_many(
        self,
        photos: Iterable[Photo | PhotoSource],
        *,
        options: SearchOptions = _DEFAULTS,
        batch: int = 16,
        timeout_s: float | None = None,
    ) -> Iterator[Outcome]:
        """One outcome a photo, in order, whatever becomes of the photo: see `Outcome.error`.

        Photos are sent up to `batch` at a time, fewer if the services accept no more; the next batch is embedded
        while one is classified. Up to eight URLs are fetched side by side. Two batches of photos are in memory at most,
        so `photos` may be endless. `timeout_s` applies to each call, and not to URLs, which have their own. Raises what goes wrong before the first photo, when the services are asked what they
        accept.
        """
        check_positive(batch=batch)
        return self._identify_many(several(photos), options, batch, self._per_call(timeout_s))

    def embed(self, photos: Iterable[Photo | PhotoSource], *, timeout_s: float | None = None) -> Embeddings:
        """One embedding a photo, in one call. If any photo is bad, InvalidPhotoError names all that are."""
        time_left = self._within(timeout_s)
        images = [load(photo, self._max_message_bytes, time_left) for photo in several(photos)]
        return self._run(_flows.value(_calls.embed(images)), time_left)

    def search(
        self, embeddings: Embeddings, *, options: SearchOptions = _DEFAULTS, timeout_s: float | None = None
    ) -> SearchResult:
        """The nearest gallery photos of each embedding."""
        return self._run(_flows.value(_calls.search(embeddings, options)), self._within(timeout_s))

    def classify(
        self, embeddings: Embeddings, *, options: SearchOptions = _DEFAULTS, timeout_s: float | None = None
    ) -> ClassifyResult:
        """Make, model and year of each embedding."""
        return self._run(_flows.value(_calls.classify(embeddings, options)), self._within(timeout_s))

    def info(self, *, timeout_s: float | None = None) -> Info:
        """Which model and which index are served, and what they accept."""
        return self._run(_flows.info(), self._within(timeout_s))

    def labels(self, *, timeout_s: float | None = None) -> Iterator[LabelCount]:
        """The gallery's labels in alphabetical order, fetched a page at a time; `timeout_s` is for each page."""
        time_left = self._per_call(timeout_s)
        token: str | None = ""
        while token is not None:
            page = self._run(_flows.value(_calls.list_labels(token)), time_left)
            yield from page.labels
            token = page.next_token

    def close(self) -> None:
        """Ends the connections.

        Operations that are under way elsewhere end with a CallError, also between two of their calls; `identify_many`
        and `labels` raise RuntimeError at their next batch or page.
        """
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _identify_many(
        self, photos: Iterable[Photo | PhotoSource], options: SearchOptions, batch: int, time_left: TimeLeft
    ) -> Iterator[Outcome]:
        limits = self._run(_flows.batch_limits(batch, self._max_message_bytes), time_left)
        calls = InFlight(self._connection, time_left)
        ahead: Running[list[Outcome]] | None = None
        try:
            for entries in _batches(photos, limits):
                self._connection.check_open()
                started = Running(_flows.identify_batch(entries, options, patience_s=time_left()), calls.start)
                if ahead is not None:
                    yield from ahead.result()
                ahead = started
            if ahead is not None:
                yield from ahead.result()
        finally:
            calls.cancel()

    def _run(self, flow: Flow[T], time_left: TimeLeft) -> T:
        self._connection.check_open()
        return Running(flow, partial(blocking, self._connection, time_left)).result()


def _batches(photos: Iterable[Photo | PhotoSource], limits: Limits) -> Iterator[list[Entry]]:
    packer = Packer(limits)
    for entry in _entries(photos, packer):
        yield from packer.add(entry)
    yield from packer.rest()


def _entries(photos: Iterable[Photo | PhotoSource], packer: Packer) -> Iterator[Entry]:
    """The photos, read in order; URLs among the next few are fetched side by side."""
    numbered = enumerate(photos)
    fetchers = ThreadPoolExecutor(READ_AHEAD, "vmmr-fetch")
    try:
        while reading := [_start(fetchers, *each, packer.limits) for each in islice(numbered, packer.read_ahead)]:
            for entry in reading:
                yield entry()
    finally:
        fetchers.shutdown(wait=False, cancel_futures=True)


def _start(
    fetchers: ThreadPoolExecutor, position: int, photo: Photo | PhotoSource, limits: Limits
) -> Callable[[], Entry]:
    if is_url(photo):
        return fetchers.submit(read_entry, position, photo, limits).result
    # Before the next is asked for: a generator may close a file, or use a buffer again.
    entry = read_entry(position, photo, limits)
    return lambda: entry
