"""The calls of one process: one event loop, its connections, and what it sees."""

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
from loadtest.plan import Load, Open, Plan
from loadtest.recorder import Record, record
from loadtest.replies import MalformedReplyError
from loadtest.schedule import arrivals, share
from loadtest.targets import CALLS, NETWORK, Answer, Ask, ask

TICK_S = 0.01
BACKOFF_S = 0.05
"""How long a caller of a closed loop waits after it was refused: not to find out at once is what callers do."""
_GRACE_S = 0.25
"""After the end, for calls that were to start before it."""
_MAX_MESSAGE_BYTES = 2**31 - 1
_KEEPALIVE_S = 30.0


@dataclass(frozen=True)
class Step:
    """One load, for one of several processes."""

    load: Load
    begins: float
    """As `time.monotonic()` counts, which is the same in all processes of a machine."""
    most_calls: int
    """Of all processes together."""
    process: int
    processes: int


@dataclass
class Progress:
    """So far; of one process, or of all."""

    started: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    latency_s: float = 0.0
    """Of all answered together."""


class Generator:
    """Makes the calls of step after step on the same connections."""

    def __init__(self, plan: Plan, requests: tuple[bytes, ...], stopped: Callable[[], bool]) -> None:
        """`stopped` is asked all the time whether to end early."""
        self._plan = plan
        self._requests = requests
        self._stopped = stopped
        metadata = (("authorization", f"Bearer {plan.access.token}"),) if plan.access.token else ()
        self._asks = [ask(plan.target, _channels(plan), plan, metadata) for _ in range(plan.connections)]

    async def run(self, step: Step, tell: Callable[[Progress], None]) -> Record:
        """The step, until its last call has ended. `tell` hears of it twice a second."""
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
        # Earlier than planned, if it was stopped or has used up its calls.
        self._until = min(self._until, time.monotonic())
        await self._end()
        await ticking
        if self._broken:
            raise self._broken
        self._record.window_s = max(self._until - self._from, 0.0)
        self._record.cpu_shares.append(used)
        return self._record

    async def _open(self, rate: float) -> None:
        """A task a call, started when it is due, whatever became of those before."""
        schedule = share(
            arrivals(rate, self._plan.warmup_s + self._plan.duration_s, self._plan.arrivals, self._plan.seed),
            self._step.process,
            self._step.processes,
            self._step.most_calls,
        )
        number = 0
        for number, offset in schedule:  # the last one matters
            due = self._step.begins + offset
            await _sleep_until(due)
            if time.monotonic() > self._until + _GRACE_S:
                # So far behind that what is left would come after the end, and the step must end.
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
        """Whether it was answered."""
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
        """Measures how late the event loop is, tells of progress, and hears of an early end."""
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
        """Each call has a deadline, so this has one, too."""
        while self._calls:
            await asyncio.wait(self._calls)


async def _sleep_until(due: float) -> None:
    # Never without giving the calls under way their turn: a schedule that is behind would starve them.
    await asyncio.sleep(max(due - time.monotonic(), 0))


def _channels(plan: Plan) -> dict[str, grpc.aio.Channel]:
    """One to each service, with a connection of its own."""
    return {service: _open_channel(plan, getattr(plan.access, service)) for service in plan.services}


def _open_channel(plan: Plan, target: str) -> grpc.aio.Channel:
    options = [
        *_channel.options(target, max_message_bytes=_MAX_MESSAGE_BYTES, keepalive_s=_KEEPALIVE_S, shared=False),
        # A load test counts what is refused or fails. It does not try again.
        ("grpc.enable_retries", 0),
    ]
    if plan.access.tls is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, _channel.credentials(plan.access.tls), options)


def event_loop() -> asyncio.AbstractEventLoop:
    """One whose timers are not rounded up to whole milliseconds, as those of epoll are: `select` has microseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
