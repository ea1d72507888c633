"""One of several processes that share a port, from the inside: its number and cores, its messages to the supervisor, its end."""

import asyncio
import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from svckit import cli, cores, logs

# The supervisor reads a ready worker's messages only once it has ended. A longer text would fill the pipe, and the worker
# would wait for ever for somebody to read it.
_MAX_FAILURE_TEXT = 10_000


@dataclass(frozen=True)
class Ready:
    """Message to the supervisor: the worker takes calls, and serves its metrics, if any, at this port of the loopback interface."""

    metrics_port: int | None


@dataclass(frozen=True)
class Failed:
    """Message to the supervisor: the worker ends, because of this; a line, or a traceback, for people."""

    text: str


@dataclass(frozen=True)
class Worker:
    """One of the processes that share a port, as it sees itself. Pickled, to be handed to the new process."""

    number: int
    """Counts from 0."""
    cores: int
    """How many processors it may keep busy."""
    _supervisor: Connection

    def tell(self, message: Ready | Failed) -> None:
        """Send the message to the supervisor, if there still is one."""
        try:
            self._supervisor.send(message)
        except BrokenPipeError:
            return


@dataclass(frozen=True)
class Main:
    """A coroutine function `main(settings, worker)` at the top level of a module, by the names under which to import it.

    Names, because multiprocessing cannot unpickle a function that is in the `__main__` of a package.
    """

    module: str
    name: str
    program: str
    """The name of the command, for error messages."""

    @classmethod
    def of(cls, function: Callable[..., Awaitable[None]], program: str) -> "Main":
        module = function.__module__
        spec = sys.modules["__main__"].__spec__
        return cls(spec.name if module == "__main__" and spec else module, function.__name__, program)

    def run(self, settings: Any, worker: Worker) -> None:
        function = getattr(importlib.import_module(self.module), self.name)
        asyncio.run(function(settings, worker))


def work(main: Main, settings: Any, worker: Worker) -> None:
    """Run `main` in a worker's process, to its end. If it fails, tell the supervisor, which tells the user, and exit with 1."""
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    cores.limit(worker.cores)
    logs.tag(worker=worker.number)
    try:
        main.run(settings, worker)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 (whatever it is, the supervisor must hear of it)
        _fail(worker, cli.mistake(error) or traceback.format_exc().strip())


def _fail(worker: Worker, text: str) -> None:
    worker.tell(Failed(text[-_MAX_FAILURE_TEXT:]))
    sys.exit(1)


def _end_with_supervisor() -> None:
    """Wait until the supervisor has ended, in whatever way, then end this process as SIGTERM does: with its calls answered."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    multiprocessing.connection.wait([supervisor.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
