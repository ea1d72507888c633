"""The supervisor of several processes that serve on one port: it starts them, restarts one that dies, ends them, and stands
for all of them to callers and operators.
"""

import argparse
import asyncio
import dataclasses
import itertools
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from svckit import config, logs, ports
from svckit.cli import CommandError
from svckit.cores import shares
from svckit.metrics import Endpoint
from svckit.server import ServerConfig
from svckit.signals import ended_before, on_signals
from svckit.worker import Main, Worker
from svckit.worker_metrics import WorkerMetrics
from svckit.worker_slot import WorkerSlot

Settings = TypeVar("Settings", bound=ServerConfig)

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_LONG_LIFE_S = 60.0
"""A worker that lived so long is restarted after the first pause again: what killed it need not kill the next at once."""
_BESIDES_DRAIN_S = 10.0
"""Time that workers have to end, on top of the drain, before they are killed."""


def serve(
    main: Callable[[Settings, Worker | None], Awaitable[None]],
    config_class: type[Settings],
    prefix: str,
    args: argparse.Namespace,
    program: str,
) -> None:
    """Read the settings and run `main` until it ends: in this process, or, with more `workers` than 1, in so many of its own.

    `main` must be at the top level of its module, because the processes are spawned. Raise ConfigError, and what `main`
    raises; with several processes, CommandError with the message of the first that fails before all are ready.
    """
    settings = config.from_namespace(config_class, prefix, args)
    logs.configure(settings.log_level, settings.log_format)
    for warning in config.unheeded(config_class, prefix):
        _log.warning(warning)
    if settings.workers == 1:
        asyncio.run(_alone(main, settings))
        return
    asyncio.run(_together(Main.of(main, program), settings))


def log_from_the_start(prefix: str, argv: Sequence[str], env: Mapping[str, str] = os.environ) -> None:
    """Log in the form that the arguments or the environment ask for, before they are read.

    So what is wrong with them is told in that form, too. A form that is none is told as JSON, the default.
    """
    flag = "--log-format"
    given = [value for name, value in itertools.pairwise(argv) if name == flag]
    given += [text.removeprefix(f"{flag}=") for text in argv if text.startswith(f"{flag}=")]
    form = (given or [env.get(f"{prefix}_LOG_FORMAT", "")])[-1]
    logs.configure(ServerConfig.log_level, form if form in logs.FORMATS else ServerConfig.log_format)


async def _alone(main: Callable[[Settings, Worker | None], Awaitable[None]], settings: Settings) -> None:
    await main(settings, None)


async def _together(main: Main, settings: ServerConfig) -> None:
    with ports.shared(settings.host, settings.port) as port:
        await _Supervisor(main, dataclasses.replace(settings, port=port)).run()


class _Supervisor:
    """Keeps the workers running until a signal. It does not notice a worker that lives, but hangs."""

    def __init__(self, main: Main, settings: ServerConfig) -> None:
        self._main = main
        self._settings = settings
        self._slots = [WorkerSlot(number, share) for number, share in enumerate(shares(settings.workers))]
        self._opened = False
        self._metrics_port: int | None = None
        self._registry = CollectorRegistry()
        self._restarts = Counter(
            "vmmr_worker_restarts_total",
            "Workers that died and were started anew",
            ("worker",),
            registry=self._registry,
        )
        for slot in self._slots:
            self._restarts.labels(str(slot.number))
        workers = Gauge("vmmr_workers", "Workers that take calls", registry=self._registry)
        workers.set_function(lambda: sum(slot.is_ready for slot in self._slots))
        self._registry.register(WorkerMetrics(self._metrics_ports))

    async def run(self) -> None:
        """Run the workers until a signal. Raise CommandError if a worker fails before all are ready, and ConfigError if the port for metrics is taken."""
        signalled = on_signals(self._end_at_once)
        with ExitStack() as stack:
            if self._settings.metrics_port is not None:
                endpoint = Endpoint(
                    self._registry, host=self._settings.metrics_address, port=self._settings.metrics_port
                )
                stack.callback(endpoint.stop)
                self._metrics_port = endpoint.port
            try:
                await ended_before(signalled, _all(self._keep(slot) for slot in self._slots))
            finally:
                await self._stop()
        _log.info("stopped", extra={"workers": len(self._slots)})

    async def _keep(self, slot: WorkerSlot) -> None:
        """Start a worker, and start it again whenever it has ended. Raise CommandError if it fails before all are ready."""
        pause_s = _FIRST_PAUSE_S
        for restarts in itertools.count(1):
            started = time.monotonic()
            slot.start(self._main, self._settings)
            if await slot.ready():
                _log.info("worker ready", extra={"worker": slot.number, "pid": slot.pid})
                self._open_once_all_are_ready()
            how = await slot.ended()
            if not self._opened:
                raise CommandError(slot.error or f"worker {slot.number} ended with {how}")
            self._restarts.labels(str(slot.number)).inc()
            pause_s = _FIRST_PAUSE_S if time.monotonic() - started > _LONG_LIFE_S else pause_s
            about = {"worker": slot.number, "pid": slot.pid, "ended_with": how, "error": slot.error}
            _log.warning("worker ended", extra={**about, "restarts": restarts, "restart_in_s": pause_s})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _open_once_all_are_ready(self) -> None:
        if self._opened or not all(slot.is_ready for slot in self._slots):
            return
        self._opened = True
        settings = self._settings
        ports.write(settings.port_file, port=settings.port, metrics_port=self._metrics_port)
        about = {"server": self._main.program, "workers": len(self._slots), "tls": settings.tls_cert is not None}
        where = {"host": settings.host, "port": settings.port, "metrics_port": self._metrics_port}
        _log.info("ready", extra={**about, **where})

    def _metrics_ports(self) -> dict[int, int]:
        ports = ((slot.number, slot.metrics_port) for slot in self._slots if slot.is_ready)
        return {number: port for number, port in ports if port is not None}

    async def _stop(self) -> None:
        """Send SIGTERM to all workers, wait until they have ended, and kill those that do not."""
        for slot in self._slots:
            slot.terminate()
        ends = _all(slot.ended() for slot in self._slots)
        try:
            await asyncio.wait_for(ends, self._settings.drain_pause_s + self._settings.drain_s + _BESIDES_DRAIN_S)
        except TimeoutError:
            _log.warning("workers did not end, and are killed")
            self._kill()

    def _kill(self) -> None:
        for slot in self._slots:
            slot.kill()

    def _end_at_once(self, signum: signal.Signals) -> None:
        self._kill()
        os._exit(128 + signum)


async def _all(work: Iterable[Awaitable[Any]]) -> None:
    """Wait for all; if one fails, cancel the others and raise what it raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
