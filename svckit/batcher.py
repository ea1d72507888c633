"""Batches across callers, for a backend that is cheaper by the batch, and runs one batch at a time or a few.

There is no timer: a batch is what piled up while the backend was busy. The backend's own threads, its lanes, take the next
batch themselves the moment they are free: they never wait for the event loop, and a batch is as full as it can be. It is filled from
the callers in turn, so that one who sends many at once does not hold up the others.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self

from svckit import stages
from svckit.access import callers
from svckit.errors import Reason, ServiceError
from svckit.gate import shutting_down
from svckit.pace import Pace
from svckit.stages import Stage, Stages
from svckit.submission import Batch, Batched, In, Out, Part, Run, Submission
from svckit.turns import Turns, limit_for

__all__ = ["Batched", "Batcher"]


class Batcher(Generic[In, Out]):
    """Runs batches of at most `max_batch` items in `lanes` threads of its own, for callers on one event loop.

    At most `max_queue` items wait, and a quarter more of callers who then have no more than an equal share of them; items in a
    batch that runs no longer count.

    `alone`, if given, is another function that runs a batch, with the whole backend. It is used while few items are inside,
    fewer than would occupy half of the lanes: one batch at a time.

    `longest_s`, if given, returns the seconds that a batch should take at most while several callers come, for a backend to
    which a large batch is hardly cheaper than some small ones: who comes meanwhile waits for less.

    `stage`, if given, is what a batch's run is called in the traces of its callers, behind their `queue`.
    """

    def __init__(
        self,
        run: Run[In, Out],
        *,
        max_batch: int,
        max_queue: int,
        lanes: int = 1,
        alone: Run[In, Out] | None = None,
        longest_s: Callable[[], float] | None = None,
        stage: str = "",
    ) -> None:
        self._run = run
        self._stage = stage
        self._alone = alone
        self._pace = Pace(max_batch, longest_s)
        self.max_queue = max_queue
        self._few = max(2, lanes // 2) if alone else 0
        self._queue: Turns[Submission[In, Out]] = Turns()
        self._waiting = 0
        self._running = 0  # items
        self._occupied = False  # whether a batch runs alone
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

    @property
    def oldest_s(self) -> float:
        """How long the oldest item in the queue has waited, in seconds; 0 if none waits."""
        with self._changed:
            first = min((each.submitted for each in self._queue.oldest_of_each()), default=None)
        return 0.0 if first is None else time.monotonic() - first

    async def submit(self, items: Sequence[In], *, deadline: float | None = None) -> Batched[Out]:
        """Wait for the outputs of all items, which may be spread over several batches.

        All items are admitted or none. `deadline` is a time of `time.monotonic`, the clock of asyncio's loop.
        Items whose caller was cancelled, or whose deadline passed, are dropped before they cost anything.
        Raise ServiceError, QUEUE_FULL, DEADLINE_EXCEEDED or SHUTTING_DOWN, and whatever `run` raised.
        """
        now = time.monotonic()
        if not items:
            return Batched([], queue_ms=0.0, run_ms=0.0)
        future: asyncio.Future[Batched[Out]] = asyncio.get_running_loop().create_future()
        owner = callers.current.get().name
        submission = Submission(items, math.inf if deadline is None else deadline, future, submitted=now, owner=owner)
        submission.stages = stages.current() if self._stage else None
        self._admit(submission)
        try:
            async with asyncio.timeout_at(deadline) as limit:
                return await future
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ServiceError(Reason.DEADLINE_EXCEEDED, "the deadline passed") from error
        finally:
            self._discard([submission])
            if not submission.taken:
                submission.leave_queue(time.monotonic())

    async def close(self) -> None:
        """Fail the items that wait with SHUTTING_DOWN, and return when the batches that run have ended, with their callers answered."""
        with self._changed:
            self._closed = True
            abandoned = list(self._queue)
            self._changed.notify_all()
        for submission in abandoned:
            _fail(submission, shutting_down())
        for lane in self._lanes:
            await asyncio.to_thread(lane.join)

    def _admit(self, submission: Submission[In, Out]) -> None:
        with self._changed:
            if self._closed:
                raise shutting_down()
            if self._waiting + submission.waiting > self.max_queue:
                self._check_share(submission)
            self._pace.came(submission.owner, submission.submitted)
            self._queue.add(submission)
            self._waiting += submission.waiting
            self._changed.notify()

    def _check_share(self, submission: Submission[In, Out]) -> None:
        """Raise ServiceError, QUEUE_FULL, unless the submission may wait beyond `max_queue`."""
        count, owner = submission.waiting, submission.owner
        if count > self.max_queue:
            message = f"{count} items never fit the queue, which holds {self.max_queue}: send fewer at once"
            raise ServiceError(Reason.QUEUE_FULL, message)
        own = count + sum(each.waiting for each in self._queue.of(owner))
        limit = limit_for(self.max_queue, own, self._queue.owners(owner))
        if self._waiting + count > limit:
            message = f"the queue is full: {self._waiting} of {limit} items wait"
            wait_s = self._pace.wait_s(self._waiting, len(self._lanes))
            raise ServiceError(Reason.QUEUE_FULL, message, retry_after_s=wait_s)

    def _work(self) -> None:
        """Run a lane: take a batch, run it, hand the outcome to the event loop, until the batcher is closed."""
        while batch := self._take():
            began = time.monotonic()
            outcomes = self._traced(batch, began) if batch.traced else self._outcomes(batch)
            ended = time.monotonic()
            self._release(batch, ended - began)
            self._discard([part.submission for part, outcome in outcomes if isinstance(outcome, Exception)])
            # On a closed loop nobody waits any more.
            with suppress(RuntimeError):
                loop = batch.parts[0].submission.future.get_loop()
                loop.call_soon_threadsafe(_deliver, outcomes, began, ended)
            # A lane that waits for its next batch must not keep the last one alive.
            del batch, loop, outcomes

    def _take(self) -> Batch[In, Out] | None:
        """Wait for items that somebody still wants and return a batch of them; return None when the batcher is closed."""
        with self._changed:
            while True:
                self._changed.wait_for(self._can_begin)
                if self._closed:
                    return None
                if parts := self._fill():
                    return self._begin(parts)

    def _can_begin(self) -> bool:
        """Return whether a lane may take a batch now.

        Few items wait until they can run alone: else those that run would keep the next from it, for as long as more come.
        """
        wait = self._occupied or (self._running and self._running + self._waiting < self._few)
        return self._closed or bool(self._queue and not wait)

    def _begin(self, parts: Sequence[Part[In, Out]]) -> Batch[In, Out]:
        count = sum(len(part.items) for part in parts)
        alone = self._alone if not self._running and count + self._waiting < self._few else None
        self._running += count
        self._occupied = alone is not None
        if self._queue:
            self._changed.notify()  # the next lane, which may begin as well, and so on
        return Batch(parts, alone or self._run)

    def _release(self, batch: Batch[In, Out], run_s: float) -> None:
        count = len(batch.items)
        with self._changed:
            self._running -= count
            self._pace.ran(count, run_s)
            self._occupied = False

    def _fill(self) -> list[Part[In, Out]]:
        parts: list[Part[In, Out]] = []
        room = self._pace.room(time.monotonic())
        while self._queue and room:
            submission = self._queue.next()
            if not submission.wanted():
                self._remove(submission)
                continue
            self._queue.pass_on()
            count = min(room, submission.waiting)
            if count == submission.waiting:
                self._queue.remove(submission)
            parts.append(
                Part(submission, submission.taken, submission.items[submission.taken : submission.taken + count])
            )
            submission.taken += count
            self._waiting -= count
            room -= count
        return parts

    def _traced(self, batch: Batch[In, Out], began: float) -> list[tuple[Part[In, Out], list[Out] | Exception]]:
        """Run the batch, and write it down, with the stages of its run, for each of its callers that is traced."""
        for submission in batch.traced:
            submission.leave_queue(began)
        inner: Stages = []
        stages.collect(inner)
        outcomes = self._outcomes(batch)
        stages.collect(None)
        run = Stage(self._stage, began, time.monotonic(), {"vmmr.batch.items": len(batch.items)}, inner)
        for submission in batch.traced:
            submission.write_down(run)
        return outcomes

    def _outcomes(self, batch: Batch[In, Out]) -> list[tuple[Part[In, Out], list[Out] | Exception]]:
        """Run the batch, and return the outputs of each part, or the error that its submission ends with."""
        outputs = iter(self._outputs(batch))
        return [(part, _whole(list(islice(outputs, len(part.items))))) for part in batch.parts]

    def _outputs(self, batch: Batch[In, Out]) -> Sequence[Out | Exception]:
        """Return an output, or an exception, for each item."""
        items = batch.items
        try:
            outputs = list(batch.run(items))
        except BaseException as error:  # noqa: BLE001 (whatever it is: the callers must hear of it, and the thread must live on)
            return [_raisable(error)] * len(items)
        if len(outputs) != len(items):
            return [RuntimeError(f"the backend gave {len(outputs)} outputs for {len(items)} items")] * len(items)
        return outputs

    def _discard(self, submissions: Sequence[Submission[In, Out]]) -> None:
        """Remove those of the submissions that are still in the queue."""
        with self._changed:
            for submission in submissions:
                if submission in self._queue:
                    self._remove(submission)

    def _remove(self, submission: Submission[In, Out]) -> None:
        self._queue.remove(submission)
        self._waiting -= submission.waiting


def _whole(outputs: list[Any]) -> list[Any] | Exception:
    """Return the outputs of one part, or the first error among them."""
    return next((_raisable(output) for output in outputs if isinstance(output, Exception)), outputs)


def _deliver(outcomes: Sequence[tuple[Part[Any, Any], list[Any] | Exception]], began: float, ended: float) -> None:
    for part, outcome in outcomes:
        if isinstance(outcome, Exception):
            _fail(part.submission, outcome)
        else:
            part.submission.add(part.start, outcome, began, ended)


def _fail(submission: Submission[Any, Any], error: Exception) -> None:
    if not submission.future.done():
        submission.future.set_exception(error)


def _raisable(error: BaseException) -> Exception:
    """Return the error itself, or one that names it, if a future that carries it would harm the event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the backend raised {error!r}")
    wrapped.__cause__ = error
    return wrapped
