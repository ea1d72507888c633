"""One of several processes that share a port, from the inside: what it knows, tells its supervisor, and ends with."""

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

# Once a worker is ready nobody reads what it tells before it has ended: it must fit a pipe, or it never would.
_MOST_TOLD = 10_000


@dataclass(frozen=True)
class Ready:
    """A worker takes calls; its metrics, if any, are at this port of the loopback interface."""

    metrics_port: int | None


@dataclass(frozen=True)
class Failed:
    """A worker ends with this text for people: a line, or a traceback."""

    text: str


@dataclass(frozen=True)
class Worker:
    """One of the processes that share a port, as it knows itself. Pickled."""

    number: int
    """From 0."""
    cores: int
    """How many it may keep busy."""
    _supervisor: Connection

    def tell(self, message: Ready | Failed) -> None:
        """Tells the supervisor, if there still is one."""
        try:
            self._supervisor.send(message)
        except BrokenPipeError:
            return


@dataclass(frozen=True)
class Main:
    """A coroutine function `main(settings, worker)` at the top level of a module, by its names.

    multiprocessing does not find by itself what is in the `__main__` of a package.
    """

    module: str
    name: str
    program: str
    """How it names itself to its users."""

    @classmethod
    def of(cls, function: Callable[..., Awaitable[None]], program: str) -> "Main":
        module = function.__module__
        spec = sys.modules["__main__"].__spec__
        return cls(spec.name if module == "__main__" and spec else module, function.__name__, program)

    def run(self, settings: Any, worker: Worker) -> None:
        function = getattr(importlib.import_module(self.module), self.name)
        cli.run(lambda: asyncio.run(function(settings, worker)), self.program)


def work(main: Main, settings: Any, worker: Worker) -> None:
    """The life of a worker's process. What it fails of it tells its supervisor, and not the user."""
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    cores.limit(worker.cores)
    logs.tag(worker=worker.number)
    try:
        main.run(settings, worker)
    except SystemExit as end:
        if not isinstance(end.code, str):
            raise
        _fail(worker, end.code)
    except Exception:  # noqa: BLE001 (whatever it is, the supervisor must hear of it)
        _fail(worker, traceback.format_exc())


def _fail(worker: Worker, text: str) -> None:
    worker.tell(Failed(text[-_MOST_TOLD:]))
    sys.exit(1)


def _end_with_supervisor() -> None:
    """Once the supervisor is gone, however it went, this process ends as after a signal: with its calls answered."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    multiprocessing.connection.wait([supervisor.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
