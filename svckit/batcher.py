"""Batches across callers, for a backend that is cheaper by the batch, and does one thing at a time or a few.

There is no timer: a batch is what piled up while the backend was busy. The backend's own threads, its lanes, take the next
batch themselves, the moment they are free, so they never wait for the event loop, and a batch is as full, and as fresh,
as it can be.
"""

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self

from svckit.errors import Reason, ServiceError
from svckit.gate import shutting_down
from svckit.submit import Batch, Batched, In, Out, Part, Run, Submit

__all__ = ["Batched", "Batcher"]

_PACE_WEIGHT = 0.2
_FIRST_GUESS_S = 0.05


class Batcher(Generic[In, Out]):
    """Runs batches of at most `max_batch` items in `lanes` threads of its own, for callers on one event loop.

    At most `max_queue` items wait; what the backend is working on no longer counts.

    `alone`, if given, is another way to run a batch, that takes the whole backend: while few items are inside, fewer than
    would occupy half of the lanes, they run that way, one batch at a time.
    """

    def __init__(
        self, run: Run[In, Out], *, max_batch: int, max_queue: int, lanes: int = 1, alone: Run[In, Out] | None = None
    ) -> None:
        self._run = run
        self._alone = alone
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._few = max(2, lanes // 2) if alone else 0
        self._queue: OrderedDict[Submit[In, Out], None] = OrderedDict()
        self._waiting = 0
        self._running = 0  # items
        self._occupied = False  # by a batch that runs alone
        self._batch_s = _FIRST_GUESS_S
        self._closed = False
        self._changed = threading.Condition()  # guards all of these
        self._lanes = [threading.Thread(target=self._work, name=f"batcher-{i}", daemon=True) for i in range(lanes)]
        for lane in self._lanes:
            lane.start()

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
        submit = Submit(items, math.inf if deadline is None else deadline, future, submitted=now)
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
            self._changed.notify_all()
        for submit in abandoned:
            _fail(submit, shutting_down())
        for lane in self._lanes:
            await asyncio.to_thread(lane.join)

    def _admit(self, submit: Submit[In, Out]) -> None:
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
        batches = math.ceil(self._waiting / self._max_batch / len(self._lanes))
        return ServiceError(Reason.QUEUE_FULL, message, retry_after_s=batches * self._batch_s)

    def _work(self) -> None:
        """A lane: takes a batch, runs it, hands the outcome to the event loop, until closed."""
        while batch := self._take():
            began = time.monotonic()
            outcomes = self._outcomes(batch)
            ended = time.monotonic()
            self._release(batch, ended - began)
            self._discard([part.submit for part, outcome in outcomes if isinstance(outcome, Exception)])
            # A closed loop has nobody left who waits.
            with suppress(RuntimeError):
                loop = batch.parts[0].submit.future.get_loop()
                loop.call_soon_threadsafe(_deliver, outcomes, began, ended)
            # While it waits, the lane keeps alive nothing of what it has done.
            del batch, loop, outcomes

    def _take(self) -> Batch[In, Out] | None:
        """The next batch of items somebody still wants, as soon as there is one; None when closed."""
        with self._changed:
            while True:
                self._changed.wait_for(self._can_begin)
                if self._closed:
                    return None
                if parts := self._fill():
                    return self._begun(parts)

    def _can_begin(self) -> bool:
        """Few items wait until they can run alone, rather than keep each other from it for as long as more come."""
        stay = self._occupied or (self._running and self._running + self._waiting < self._few)
        return self._closed or bool(self._queue and not stay)

    def _begun(self, parts: Sequence[Part[In, Out]]) -> Batch[In, Out]:
        count = sum(len(part.items) for part in parts)
        alone = self._alone if not self._running and count + self._waiting < self._few else None
        self._running += count
        self._occupied = alone is not None
        if self._queue:
            self._changed.notify()  # the next lane, which may begin as well, and so on
        return Batch(parts, alone or self._run)

    def _release(self, batch: Batch[In, Out], run_s: float) -> None:
        with self._changed:
            self._running -= sum(len(part.items) for part in batch.parts)
            self._batch_s += _PACE_WEIGHT * (run_s - self._batch_s)
            self._occupied = False

    def _fill(self) -> list[Part[In, Out]]:
        parts: list[Part[In, Out]] = []
        room = self._max_batch
        while self._queue and room:
            submit = next(iter(self._queue))
            if not submit.wanted():
                self._remove(submit)
                continue
            count = min(room, submit.waiting)
            if count == submit.waiting:
                del self._queue[submit]
            parts.append(Part(submit, submit.taken, submit.items[submit.taken : submit.taken + count]))
            submit.taken += count
            self._waiting -= count
            room -= count
        return parts

    def _outcomes(self, batch: Batch[In, Out]) -> list[tuple[Part[In, Out], list[Out] | Exception]]:
        """What came of each part."""
        outputs = iter(self._outputs(batch))
        return [(part, _whole(list(islice(outputs, len(part.items))))) for part in batch.parts]

    def _outputs(self, batch: Batch[In, Out]) -> Sequence[Out | Exception]:
        """One for each item."""
        items = batch.items
        try:
            outputs = list(batch.run(items))
        except BaseException as error:  # noqa: BLE001 (whatever it is, the callers must hear of it and the thread live on)
            return [_raisable(error)] * len(items)
        if len(outputs) != len(items):
            return [RuntimeError(f"the backend gave {len(outputs)} outputs for {len(items)} items")] * len(items)
        return outputs

    def _discard(self, submits: Sequence[Submit[In, Out]]) -> None:
        """Takes out of the queue what is still in it."""
        with self._changed:
            for submit in submits:
                if submit in self._queue:
                    self._remove(submit)

    def _remove(self, submit: Submit[In, Out]) -> None:
        del self._queue[submit]
        self._waiting -= submit.waiting


def _whole(outputs: list[Any]) -> list[Any] | Exception:
    """The outputs of one submit, or the first error among them."""
    return next((_raisable(output) for output in outputs if isinstance(output, Exception)), outputs)


def _deliver(outcomes: Sequence[tuple[Part[Any, Any], list[Any] | Exception]], began: float, ended: float) -> None:
    for part, outcome in outcomes:
        if isinstance(outcome, Exception):
            _fail(part.submit, outcome)
        else:
            part.submit.add(part.start, outcome, began, ended)


def _fail(submit: Submit[Any, Any], error: Exception) -> None:
    if not submit.future.done():
        submit.future.set_exception(error)


def _raisable(error: BaseException) -> Exception:
    """The error itself if a future can carry it without harm to the event loop, or else one that names it."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the backend raised {error!r}")
    wrapped.__cause__ = error
    return wrapped
