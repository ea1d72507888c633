"""Batches across callers, for a backend that is cheaper by the batch and can do one thing at a time.

There is no timer: a batch is what piled up while the backend was busy. The backend's own thread takes the next batch
itself, the moment it is free, so it never waits for the event loop, and a batch is as full, and as fresh, as it can be.
"""

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from svckit.errors import Reason, ServiceError
from svckit.gate import shutting_down

In = TypeVar("In")
Out = TypeVar("Out")

_PACE_WEIGHT = 0.2
_FIRST_GUESS_S = 0.05


@dataclass(frozen=True)
class Batched(Generic[Out]):
    """The outputs of one submit, in the order of its items, and where the time went."""

    outputs: list[Out]
    queue_ms: float
    """Milliseconds spent waiting for the backend."""
    run_ms: float
    """Milliseconds the backend took for the batches these items were in."""


@dataclass(eq=False)
class _Submit(Generic[In, Out]):
    """The items of one caller on their way through, and what came back so far."""

    items: Sequence[In]
    deadline: float
    future: asyncio.Future[Batched[Out]]
    submitted: float
    taken: int = 0
    outputs: list[Out] = field(default_factory=list)
    run_s: float = 0.0

    @property
    def waiting(self) -> int:
        return len(self.items) - self.taken

    def wanted(self) -> bool:
        return not self.future.done() and time.monotonic() < self.deadline

    def add(self, outputs: Sequence[Out], run_s: float, ended: float) -> None:
        self.outputs.extend(outputs)
        self.run_s += run_s
        if len(self.outputs) == len(self.items) and not self.future.done():
            queue_s = ended - self.submitted - self.run_s
            self.future.set_result(Batched(self.outputs, queue_ms=1e3 * queue_s, run_ms=1e3 * self.run_s))


@dataclass(frozen=True)
class _Part(Generic[In, Out]):
    """The items of one submit that go into one batch."""

    submit: _Submit[In, Out]
    items: Sequence[In]


class Batcher(Generic[In, Out]):
    """Runs `run` on batches of at most `max_batch` items, in a thread of its own, for callers on one event loop.

    At most `max_queue` items wait; what the backend is working on no longer counts.
    """

    def __init__(self, run: Callable[[list[In]], Sequence[Out | Exception]], *, max_batch: int, max_queue: int) -> None:
        """An output that is an exception fails the submit of its item, and no other; what `run` raises fails all."""
        self._run = run
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: OrderedDict[_Submit[In, Out], None] = OrderedDict()
        self._waiting = 0
        self._batch_s = _FIRST_GUESS_S
        self._closed = False
        self._changed = threading.Condition()  # guards the queue, `_waiting` and `_closed`
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return self._waiting

    async def submit(self, items: Sequence[In], *, deadline: float | None = None) -> Batched[Out]:
        """Waits for the outputs of all items, which may be spread over several batches.

        All items are admitted or none. `deadline` is a time of `time.monotonic`, the clock of asyncio's loop.
        Items whose caller was cancelled, or whose deadline passed, are dropped before they cost anything.
        Raises ServiceError: QUEUE_FULL, DEADLINE_EXCEEDED or SHUTTING_DOWN; and whatever `run` raised.
        """
        now = time.monotonic()
        if not items:
            return Batched([], queue_ms=0.0, run_ms=0.0)
        future: asyncio.Future[Batched[Out]] = asyncio.get_running_loop().create_future()
        submit = _Submit(items, math.inf if deadline is None else deadline, future, submitted=now)
        self._admit(submit)
        try:
            async with asyncio.timeout_at(deadline) as limit:
                return await future
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ServiceError(Reason.DEADLINE_EXCEEDED, "the deadline passed") from error
        finally:
            self._discard([submit])

    async def close(self) -> None:
        """Fails what waits with SHUTTING_DOWN, lets the running batch end and its callers have their answers."""
        with self._changed:
            self._closed = True
            abandoned = list(self._queue)
            self._changed.notify()
        for submit in abandoned:
            _fail(submit, shutting_down())
        await asyncio.to_thread(self._thread.join)

    def _admit(self, submit: _Submit[In, Out]) -> None:
        with self._changed:
            if self._closed:
                raise shutting_down()
            if self._waiting + submit.waiting > self._max_queue:
                raise self._full(submit.waiting)
            self._queue[submit] = None
            self._waiting += submit.waiting
            self._changed.notify()

    def _full(self, count: int) -> ServiceError:
        if count > self._max_queue:
            message = f"{count} items never fit the queue, which holds {self._max_queue}: send fewer at once"
            return ServiceError(Reason.QUEUE_FULL, message)
        message = f"the queue is full: {self._waiting} of {self._max_queue} items wait"
        batches = math.ceil(self._waiting / self._max_batch)
        return ServiceError(Reason.QUEUE_FULL, message, retry_after_s=batches * self._batch_s)

    def _work(self) -> None:
        """The thread: takes a batch, runs it, hands the outcome to the event loop, until closed."""
        while parts := self._take():
            started = time.monotonic()
            outcomes = self._outcomes(parts)
            ended = time.monotonic()
            self._batch_s += _PACE_WEIGHT * (ended - started - self._batch_s)
            self._discard([submit for submit, outcome in outcomes if isinstance(outcome, Exception)])
            # A closed loop has nobody left who waits.
            with suppress(RuntimeError):
                parts[0].submit.future.get_loop().call_soon_threadsafe(_deliver, outcomes, ended - started, ended)
            # While it waits, the thread keeps alive nothing of what it has done.
            del parts, outcomes

    def _take(self) -> list[_Part[In, Out]]:
        """The next batch of items somebody still wants, as soon as there is one; empty when closed."""
        parts: list[_Part[In, Out]] = []
        with self._changed:
            while not parts and not self._closed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                parts = self._fill()
        return parts

    def _fill(self) -> list[_Part[In, Out]]:
        parts: list[_Part[In, Out]] = []
        room = self._max_batch
        while self._queue and room:
            submit = next(iter(self._queue))
            if not submit.wanted():
                self._remove(submit)
                continue
            count = min(room, submit.waiting)
            if count == submit.waiting:
                del self._queue[submit]
            parts.append(_Part(submit, submit.items[submit.taken : submit.taken + count]))
            submit.taken += count
            self._waiting -= count
            room -= count
        return parts

    def _outcomes(self, parts: Sequence[_Part[In, Out]]) -> list[tuple[_Submit[In, Out], list[Out] | Exception]]:
        """What came of each part."""
        outputs = iter(self._outputs([item for part in parts for item in part.items]))
        return [(part.submit, _whole(list(islice(outputs, len(part.items))))) for part in parts]

    def _outputs(self, items: list[In]) -> Sequence[Out | Exception]:
        """One for each item."""
        try:
            outputs = list(self._run(items))
        except BaseException as error:  # noqa: BLE001 (whatever it is, the callers must hear of it and the thread live on)
            return [_raisable(error)] * len(items)
        if len(outputs) != len(items):
            return [RuntimeError(f"the backend gave {len(outputs)} outputs for {len(items)} items")] * len(items)
        return outputs

    def _discard(self, submits: Sequence[_Submit[In, Out]]) -> None:
        """Takes out of the queue what is still in it."""
        with self._changed:
            for submit in submits:
                if submit in self._queue:
                    self._remove(submit)

    def _remove(self, submit: _Submit[In, Out]) -> None:
        del self._queue[submit]
        self._waiting -= submit.waiting


def _whole(outputs: list[Any]) -> list[Any] | Exception:
    """The outputs of one submit, or the first error among them."""
    return next((_raisable(output) for output in outputs if isinstance(output, Exception)), outputs)


def _deliver(outcomes: Sequence[tuple[_Submit[Any, Any], list[Any] | Exception]], run_s: float, ended: float) -> None:
    for submit, outcome in outcomes:
        if isinstance(outcome, Exception):
            _fail(submit, outcome)
        else:
            submit.add(outcome, run_s, ended)


def _fail(submit: _Submit[Any, Any], error: Exception) -> None:
    if not submit.future.done():
        submit.future.set_exception(error)


def _raisable(error: BaseException) -> Exception:
    """The error itself if a future can carry it without harm to the event loop, or else one that names it."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the backend raised {error!r}")
    wrapped.__cause__ = error
    return wrapped
