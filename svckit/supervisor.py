"""Several processes that serve on one port: starts them, starts anew the one that dies, ends them, speaks for all."""

import asyncio
import dataclasses
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from svckit import logs, ports
from svckit.cores import shares
from svckit.gathered import Gathered
from svckit.metrics import Endpoint
from svckit.seat import Seat
from svckit.server import ServerConfig
from svckit.signals import ended_before, on_signals
from svckit.worker import Main, Worker

Settings = TypeVar("Settings", bound=ServerConfig)

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_LONG_LIFE_S = 60.0
"""After so long, what killed a worker is no longer taken to be what will kill the next."""
_BESIDES_DRAIN_S = 10.0
"""What workers may take for their end on top of the drain; then they are killed."""


def serve(main: Callable[[Settings, Worker | None], Awaitable[None]], settings: Settings, program: str) -> None:
    """Runs `main` until it ends: in this process, or in as many of its own as the settings say.

    `main` is at the top level of its module, for its processes are spawned. Raises what it raises; of several processes
    the first that fails before all are ready has its say, as SystemExit.
    """
    if settings.workers == 1:
        asyncio.run(_alone(main, settings))
        return
    try:
        asyncio.run(_together(Main.of(main, program), settings))
    except _NotStartedError as error:
        sys.exit(str(error))


async def _alone(main: Callable[[Settings, Worker | None], Awaitable[None]], settings: Settings) -> None:
    await main(settings, None)


async def _together(main: Main, settings: ServerConfig) -> None:
    logs.configure(settings.log_level, settings.log_format)
    with ports.shared(settings.host, settings.port) as port:
        await _Supervisor(main, dataclasses.replace(settings, port=port)).run()


class _NotStartedError(Exception):
    """A worker failed before all were ready; says why, to the user."""


class _Supervisor:
    """Keeps the workers running until a signal. A worker that hangs, but lives, it does not notice."""

    def __init__(self, main: Main, settings: ServerConfig) -> None:
        self._main = main
        self._settings = settings
        self._seats = [Seat(number, share) for number, share in enumerate(shares(settings.workers))]
        self._opened = False
        self._metrics_port: int | None = None
        self._registry = CollectorRegistry()
        self._restarts = Counter(
            "vmmr_worker_restarts_total",
            "Workers that died and were started anew",
            ("worker",),
            registry=self._registry,
        )
        for seat in self._seats:
            self._restarts.labels(str(seat.number))
        workers = Gauge("vmmr_workers", "Workers that take calls", registry=self._registry)
        workers.set_function(lambda: sum(seat.is_ready for seat in self._seats))
        self._registry.register(Gathered(self._metrics_ports))

    async def run(self) -> None:
        """Raises _NotStartedError, and ConfigError if the port for metrics is taken."""
        signalled = on_signals(self._end_at_once)
        with ExitStack() as stack:
            if self._settings.metrics_port is not None:
                endpoint = Endpoint(self._registry, host=self._settings.host, port=self._settings.metrics_port)
                stack.callback(endpoint.stop)
                self._metrics_port = endpoint.port
            try:
                await ended_before(signalled, _all(self._keep(seat) for seat in self._seats))
            finally:
                await self._stop()
        _log.info("stopped", extra={"workers": len(self._seats)})

    async def _keep(self, seat: Seat) -> None:
        """Starts a worker, and again whenever it has ended. Raises _NotStartedError."""
        pause_s = _FIRST_PAUSE_S
        for restarts in itertools.count(1):
            started = time.monotonic()
            seat.start(self._main, self._settings)
            if await seat.ready():
                _log.info("worker ready", extra={"worker": seat.number, "pid": seat.pid})
                self._open_once_all_are_ready()
            how = await seat.ended()
            if not self._opened:
                raise _NotStartedError(
                    seat.error or f"{self._main.program}: error: worker {seat.number} ended with {how}"
                )
            self._restarts.labels(str(seat.number)).inc()
            pause_s = _FIRST_PAUSE_S if time.monotonic() - started > _LONG_LIFE_S else pause_s
            about = {"worker": seat.number, "pid": seat.pid, "ended_with": how, "error": seat.error}
            _log.warning("worker ended", extra={**about, "restarts": restarts, "restart_in_s": pause_s})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _open_once_all_are_ready(self) -> None:
        if self._opened or not all(seat.is_ready for seat in self._seats):
            return
        self._opened = True
        settings = self._settings
        ports.write(settings.port_file, port=settings.port, metrics_port=self._metrics_port)
        about = {"server": self._main.program, "workers": len(self._seats), "tls": settings.tls_cert is not None}
        where = {"host": settings.host, "port": settings.port, "metrics_port": self._metrics_port}
        _log.info("ready", extra={**about, **where})

    def _metrics_ports(self) -> dict[int, int]:
        ports = ((seat.number, seat.metrics_port) for seat in self._seats if seat.is_ready)
        return {number: port for number, port in ports if port is not None}

    async def _stop(self) -> None:
        """Ends all workers as a signal does, each in order; kills those that don't come to an end."""
        for seat in self._seats:
            seat.terminate()
        ends = _all(seat.ended() for seat in self._seats)
        try:
            await asyncio.wait_for(ends, self._settings.drain_pause_s + self._settings.drain_s + _BESIDES_DRAIN_S)
        except TimeoutError:
            _log.warning("workers did not end, and are killed")
            self._kill()

    def _kill(self) -> None:
        for seat in self._seats:
            seat.kill()

    def _end_at_once(self, signum: signal.Signals) -> None:
        self._kill()
        os._exit(128 + signum)


async def _all(work: Iterable[Awaitable[Any]]) -> None:
    """Waits for all; raises what the first to fail raises, with the others cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
