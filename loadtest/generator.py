"""Make the calls of one process, on one event loop, and record what comes of them."""

import asyncio
import os
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from vmmr import _channel

from loadtest.failures import MALFORMED, Failure, failure
from loadtest.plan import KEEPALIVE_S, MOST_MESSAGE_BYTES, Load, Open, Plan
from loadtest.recorder import Record, record
from loadtest.replies import MalformedReplyError
from loadtest.schedule import arrivals, share
from loadtest.targets import CALLS, NETWORK, Answer, Ask, ask

TICK_S = 0.01
BACKOFF_S = 0.05
"""How long a caller of a closed loop waits after a refusal, as real callers do, before its next call."""
_GRACE_S = 0.25
"""After the end, for calls that were to start before it."""


@dataclass(frozen=True)
class Step:
    """One load, for one of several processes."""

    load: Load
    begins: float
    """A time of `time.monotonic()`, which is the same in all processes of a machine."""
    most_calls: int
    """The most calls that all processes together may make."""
    process: int
    processes: int


@dataclass
class Progress:
    """What has come of the calls so far, of one process or of all."""

    started: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    latency_s: float = 0.0
    """The latencies of all answered calls, added up."""


class Generator:
    """Makes the calls of one step after the other on the same connections."""

    def __init__(self, plan: Plan, requests: tuple[bytes, ...], stopped: Callable[[], bool]) -> None:
        """Open the connections. `stopped` is asked every few milliseconds whether to end early."""
        self._plan = plan
        self._requests = requests
        self._stopped = stopped
        metadata = (("authorization", f"Bearer {plan.access.token}"),) if plan.access.token else ()
        self._asks = [ask(plan.target, _channels(plan), plan, metadata) for _ in range(plan.connections)]

    async def run(self, step: Step, tell: Callable[[Progress], None]) -> Record:
        """Run the step until its last call has ended. Tell `tell` of progress twice a second."""
        return await _Run(self._plan, self._requests, self._asks, step, self._stopped).run(tell)


class _Run:
    """One step."""

    def __init__(
        self, plan: Plan, requests: tuple[bytes, ...], asks: list[Ask], step: Step, stopped: Callable[[], bool]
    ) -> None:
        self._plan, self._requests, self._asks, self._step, self._stopped = plan, requests, asks, step, stopped
        self._record = Record()
        self._progress = Progress()
        self._from = step.begins + plan.warmup_s
        self._until = self._from + plan.duration_s
        self._slo_s = 1e-3 * plan.slo_p99_ms if plan.slo_p99_ms else None
        self._calls: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None

    async def run(self, tell: Callable[[Progress], None]) -> Record:
        await asyncio.sleep(self._step.begins - time.monotonic())
        cpu, wall = time.process_time(), time.monotonic()
        load = self._open(self._step.load.rate) if isinstance(self._step.load, Open) else self._closed()
        calling = asyncio.create_task(load)
        ticking = asyncio.create_task(self._tick(tell, calling))
        with suppress(asyncio.CancelledError):  # the ticks cancel it, to end early
            await calling
        used = (time.process_time() - cpu) / max(time.monotonic() - wall, TICK_S)
        # A step that was stopped, or has used up its calls, ends earlier than planned.
        self._until = min(self._until, time.monotonic())
        await self._end()
        await ticking
        if self._broken:
            raise self._broken
        self._record.window_s = max(self._until - self._from, 0.0)
        self._record.cpu_shares.append(used)
        return self._record

    async def _open(self, rate: float) -> None:
        """Start each call when it is due, in a task of its own, whatever became of those before."""
        schedule = share(
            arrivals(rate, self._plan.warmup_s + self._plan.duration_s, self._plan.arrivals, self._plan.seed),
            self._step.process,
            self._step.processes,
            self._step.most_calls,
        )
        number = 0
        for number, offset in schedule:  # `number` is used after the loop
            due = self._step.begins + offset
            await _sleep_until(due)
            if time.monotonic() > self._until + _GRACE_S:
                # The step must end, and it is so far behind that all calls that are left would come after its end.
                self._record.unsent += (due >= self._from) + sum(left >= self._plan.warmup_s for _, left in schedule)
                break
            self._start(self._call(number, due))
        if number + self._step.processes < self._step.most_calls:
            await _sleep_until(self._until)

    async def _closed(self) -> None:
        assert not isinstance(self._step.load, Open)
        numbers = count(self._step.process, self._step.processes)
        budget = iter(range(self._step.process, self._step.most_calls, self._step.processes))
        for caller in range(self._step.process, self._step.load.concurrency, self._step.processes):
            self._start(self._caller(caller, numbers, budget))
        if self._calls:
            await asyncio.wait(self._calls, timeout=max(self._until - time.monotonic(), 0))

    async def _caller(self, caller: int, numbers: Iterator[int], budget: Iterator[int]) -> None:
        while (now := time.monotonic()) < self._until and next(budget, None) is not None:
            if not await self._call(next(numbers), now, connection=caller // self._step.processes):
                await asyncio.sleep(BACKOFF_S)

    def _start(self, call: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._broken = error

    async def _call(self, number: int, due: float, connection: int | None = None) -> bool:
        """Make a call, record what came of it, and return whether it was answered."""
        began = time.monotonic()
        self._progress.started += 1
        self._record.calls += 1
        measured = self._from <= due < self._until
        if measured:
            record(self._record.lag, began - due)
        request = self._requests[number % len(self._requests)]
        asked = self._asks[(number // self._step.processes if connection is None else connection) % len(self._asks)]
        try:
            answer = await asked(request, began + self._plan.timeout_s)
        except grpc.aio.AioRpcError as error:
            self._failed(failure(error), began, measured=measured)
        except (MalformedReplyError, DecodeError) as error:
            self._failed(Failure(*MALFORMED, str(error)), began, measured=measured)
        except asyncio.CancelledError:
            self._record.abandoned += measured
            raise
        else:
            self._answered(answer, due, began, measured=measured)
            return True
        return False

    def _answered(self, answer: Answer, due: float, began: float, *, measured: bool) -> None:
        ended = time.monotonic()
        latency = ended - due
        met = self._slo_s is None or latency <= self._slo_s
        self._progress.answered += 1
        self._progress.latency_s += latency
        second = self._record.second(ended - self._step.begins)
        second.answered += 1
        second.worst_ms = max(second.worst_ms, 1e3 * latency)
        if self._from <= ended < self._until:
            self._record.done += 1
            self._record.done_within_slo += met
        if measured:
            self._measure(answer, latency, ended - began, met=met)

    def _measure(self, answer: Answer, latency_s: float, service_s: float, *, met: bool) -> None:
        found = self._record
        record(found.latency, latency_s)
        record(found.service, service_s)
        found.within_slo += met
        found.bytes_sent += answer.sent
        found.bytes_received += answer.received
        for name, ms in answer.stages.items():
            found.stage(name, 1e-3 * ms)
        served_ms = sum(ms for name, ms in answer.stages.items() if name not in CALLS)
        found.stage(NETWORK, service_s - 1e-3 * served_ms)

    def _failed(self, why: Failure, began: float, *, measured: bool) -> None:
        ended = time.monotonic()
        second = self._record.second(ended - self._step.begins)
        self._progress.refused += why.is_refusal
        self._progress.failed += not why.is_refusal
        second.refused += why.is_refusal
        second.failed += not why.is_refusal
        if measured:
            self._record.fail(why)
            if why.is_refusal:
                record(self._record.refusal, ended - began)

    async def _tick(self, tell: Callable[[Progress], None], calling: asyncio.Task[None]) -> None:
        """Measure how late the event loop is, tell of progress, and cancel the calls if the step is to end early."""
        parent, told = os.getppid(), 0.0
        while not (calling.done() and not self._calls):
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if self._from <= now < self._until:
                record(self._record.loop_lag, now - due)
            if now - told >= 0.5:
                told = now
                tell(self._progress)
            if self._stopped() or os.getppid() != parent:
                calling.cancel()
                for call in list(self._calls):
                    call.cancel()
        tell(self._progress)

    async def _end(self) -> None:
        """Wait for the calls under way. Each has a deadline, so this ends."""
        while self._calls:
            await asyncio.wait(self._calls)


async def _sleep_until(due: float) -> None:
    # Sleep even if it is due already: a schedule that is behind would otherwise starve the calls under way.
    await asyncio.sleep(max(due - time.monotonic(), 0))


def _channels(plan: Plan) -> dict[str, grpc.aio.Channel]:
    """Open a channel to each service, with a connection of its own."""
    return {service: _open_channel(plan, getattr(plan.access, service)) for service in plan.services}


def _open_channel(plan: Plan, target: str) -> grpc.aio.Channel:
    # gRPC itself sends a call again only if no server has begun it, as when a connection ends for its age. What servers refuse, or fail
    # over, is counted.
    options = _channel.options(target, max_message_bytes=MOST_MESSAGE_BYTES, keepalive_s=KEEPALIVE_S, shared=False)
    if plan.access.tls is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, _channel.credentials(plan.access.tls).latest(), options)


def event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop that waits with `select`, to the microsecond: epoll rounds timers up to whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
