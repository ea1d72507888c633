"""A worker, seen from its supervisor: the process that runs at the moment, and what it said."""

import asyncio
import multiprocessing
import signal
from multiprocessing import connection, context, resource_tracker
from typing import Any

from svckit.cores import Share
from svckit.signals import interrupts_blocked
from svckit.worker import Failed, Main, Ready, Worker, work

# Not forked: neither gRPC's threads nor those of OpenMP survive that.
_spawn = multiprocessing.get_context("spawn")


class WorkerSlot:
    """The slot of one worker: a number and a share of the processors, for one process after the other."""

    def __init__(self, number: int, share: Share) -> None:
        self.number = number
        self.is_ready = False
        self.metrics_port: int | None = None
        self.error: str | None = None
        """Why the last process ended, as it said itself."""
        self._share = share
        self._process: context.SpawnProcess | None = None
        self._messages: connection.Connection

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, main: Main, settings: Any) -> None:
        """Start a process, after the last one has ended. If the system allows none, the slot is as if the process had failed."""
        self._close()
        try:
            self._process = self._started(main, settings)
        except OSError as error:
            self.error = f"cannot start worker {self.number}: {error}"

    def _started(self, main: Main, settings: Any) -> context.SpawnProcess:
        self._messages, sending = _spawn.Pipe(duplex=False)
        worker = Worker(self.number, self._share.cores, sending)
        process = _spawn.Process(target=work, args=(main, settings, worker), name=f"worker {self.number}")
        # multiprocessing starts its resource tracker with the first process: it must not get the share.
        resource_tracker.ensure_running()
        with sending, self._share.applied(), interrupts_blocked():
            process.start()
        return process

    async def ready(self) -> bool:
        """Wait until the process takes calls, and return True; return False if it fails before."""
        if self._process is None:
            return False
        await _readable(self._messages.fileno())
        self._hear()
        return self.is_ready

    async def ended(self) -> str:
        """Wait until the process has ended, and return what with: `SIGKILL`, or `exit code 1`."""
        if self._process is None:
            return "no process"
        await _readable(self._process.sentinel)
        self._process.join()
        while self._messages.poll() and self._hear():
            pass
        self.is_ready = False
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def terminate(self) -> None:
        """Send SIGTERM, by which the process ends in order, if it still runs."""
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        if self._process:
            self._process.kill()

    def _hear(self) -> bool:
        """Receive a message and note what it says; return False if no more will come."""
        try:
            message = self._messages.recv()
        except (EOFError, OSError):
            return False
        match message:
            case Ready(metrics_port):
                self.is_ready, self.metrics_port = True, metrics_port
            case Failed(text):
                self.error = text
        return True

    def _close(self) -> None:
        if self._process:
            self._process.close()
            self._messages.close()
        self._process = self.error = None


async def _readable(descriptor: int) -> None:
    """Wait until there is something to read, or the other end is closed."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
