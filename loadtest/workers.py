"""Run the processes that make the calls. They are spawned, never forked, since gRPC has threads."""

import asyncio
import multiprocessing
import multiprocessing.connection
import multiprocessing.synchronize
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from loadtest.generator import Generator, Progress, Step, event_loop
from loadtest.plan import Load, Plan
from loadtest.recorder import Record

_START_S = 60.0
_HEAD_START_S = 0.1
"""Seconds between telling the processes of a step and its beginning."""
_STOP_S = 10.0


class WorkerError(RuntimeError):
    """Raised if a process of the generator failed or was killed."""


@dataclass(frozen=True)
class _Broken:
    trace: str


class Workers:
    """The plan's processes, ready to run steps until the end of a `with` block."""

    def __init__(self, plan: Plan, requests: tuple[bytes, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self.interrupted = False
        self._stop = context.Event()
        self._processes, self._pipes = [], []
        # Ctrl-C in a terminal reaches all processes. These ignore it, even while they start.
        with _interrupts_to(signal.SIG_IGN):
            for _ in range(plan.processes):
                ours, theirs = context.Pipe()
                process = context.Process(target=work, args=(plan, theirs, self._stop), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._pipes.append(ours)
        for pipe in self._pipes:
            pipe.send(requests)

    def __enter__(self) -> Self:
        try:
            for _ in self._pipes:
                self._receive(_START_S)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def run(self, load: Load, most_calls: int, tell: Callable[[Progress], None]) -> Record:
        """Run one step on all processes together. Ctrl-C ends it early, and sets `interrupted`. Raise WorkerError."""
        # Raised as an exception, Ctrl-C could lose a record that is being received, and this would wait for it for ever.
        with _interrupts_to(self._interrupt):
            return self._run(load, most_calls, tell)

    def _run(self, load: Load, most_calls: int, tell: Callable[[Progress], None]) -> Record:
        begins = time.monotonic() + _HEAD_START_S
        for number, pipe in enumerate(self._pipes):
            pipe.send(Step(load, begins, most_calls, number, len(self._pipes)))
        progress: dict[Any, Progress] = {}
        records: list[Record] = []
        while len(records) < len(self._pipes):
            pipe, message = self._receive(None)
            if isinstance(message, Progress):
                progress[pipe] = message
                tell(_total(progress.values()))
            else:
                records.append(message)
        first, *others = records
        for other in others:
            first.add(other)
        return first

    def _interrupt(self, *_: object) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self._stop.set()

    def _receive(self, timeout_s: float | None) -> tuple[Any, Any]:
        """Return the next message of any process. Raise WorkerError if a process fails."""
        ready = multiprocessing.connection.wait(self._pipes, timeout_s)
        if not ready:
            raise WorkerError(f"the generator's processes did not start within {_START_S:g} s")
        pipe: Any = ready[0]
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            process = self._processes[self._pipes.index(pipe)]
            process.join(_STOP_S)
            raise WorkerError(f"a process of the generator ended with exit code {process.exitcode}") from None
        if isinstance(message, _Broken):
            raise WorkerError(f"a process of the generator failed:\n{message.trace}")
        return pipe, message

    def _end(self) -> None:
        self._stop.set()
        for pipe in self._pipes:
            pipe.close()
        until = time.monotonic() + _STOP_S
        for process in self._processes:
            process.join(max(until - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
                process.join()


def work(plan: Plan, pipe: Connection, stop: multiprocessing.synchronize.Event) -> None:
    """Be a process of the generator: take the requests, then steps, and send records, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        requests: tuple[bytes, ...] = pipe.recv()
        with asyncio.Runner(loop_factory=event_loop) as runner:
            generator = runner.run(_made(plan, requests, stop.is_set))
            pipe.send("ready")
            while True:
                step = pipe.recv()
                pipe.send(runner.run(generator.run(step, pipe.send)))
    except (EOFError, OSError):
        return  # whoever started this has gone, or needs no more
    except Exception:  # noqa: BLE001  # told to whoever started this
        pipe.send(_Broken(traceback.format_exc()))


async def _made(plan: Plan, requests: tuple[bytes, ...], stopped: Callable[[], bool]) -> Generator:
    # gRPC's channels belong to the event loop that they are made in.
    return Generator(plan, requests, stopped)


def _total(each: Any) -> Progress:
    total = Progress()
    for one in each:
        for name, value in vars(one).items():
            setattr(total, name, getattr(total, name) + value)
    return total


@contextmanager
def _interrupts_to(handler: Callable[..., None] | signal.Handlers) -> Iterator[None]:
    heard = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)
