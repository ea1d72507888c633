"""The life of a server process: listen, warm up, serve, drain, stop."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from svckit import logs, ports, reflection, tracing
from svckit.access.access import Access
from svckit.access.settings import AccessConfig
from svckit.config import ConfigError, option
from svckit.gate import Gate
from svckit.interceptor import Interceptor
from svckit.metrics import Endpoint, Metrics
from svckit.signals import ended_before, on_signals
from svckit.tls import ServerCertificate
from svckit.worker import Ready, Worker

if TYPE_CHECKING:
    from svckit.spans import Tracing

_log = logging.getLogger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_LOOPBACK = "127.0.0.1"
_LEAST_PING_INTERVAL_MS = 10_000
_REFUSING_S = 0.1
# Streams of callers who are known; as many again of others.
_MAX_STREAMS = 1024
# How many streams HTTP/2 lets a connection have beside its calls: streams, health checks, calls that are being refused. A client
# that knows the limit waits; calls sent before it does are reset by gRPC, without a reason. So it is far above the limits that
# refuse with one.
_HTTP2_STREAMS_BESIDES_CALLS = 4096
# Calls that the event loop has not seen yet. Beyond so many gRPC itself refuses calls, health checks among them.
_MAX_PENDING = 2**15
_LAST_BYTES_S = 1.0
_CLAIMS_S = 0.5
# How long calls may go on over a connection that new calls no longer use, for its age. It ends streams that nobody ends.
_OLD_CONNECTION_S = 600

_SWITCH_INTERVAL_S = 5e-4
"""How long a thread may keep Python's lock while another waits for it. A thread that searches or embeds needs the lock some ten
times a batch, and waits each time for the thread that reads calls and writes replies. With Python's 5 ms a search of 14 ms
waited 8.6 ms in all, with this value 1.3 ms; a lower one hardly helps, and wakes waiting threads more often
(`bench/search/switching.py`)."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig(AccessConfig):
    """The settings that every server has; a service's own configuration extends them and may override a default."""

    host: str = option("127.0.0.1", help="address to listen on; 0.0.0.0 for every interface")
    port: int = option(0, minimum=0, maximum=65535, help="port to listen on; 0 takes any free one")
    workers: int = option(1, minimum=1, maximum=1024, help="processes that serve, all on the one port")
    metrics_port: int | None = option(
        None, minimum=0, maximum=65535, help="port of the Prometheus endpoint /metrics; 0 takes any free one"
    )
    metrics_host: str | None = option(
        None, needs="metrics_port", help="address of the metrics' port; --host if not set"
    )
    reflection: bool = option(True, help="tell generic clients which services there are, and their messages")
    port_file: Path | None = option(None, help="file to write the ports to, as JSON, once ready")
    tls_cert: Path | None = option(None, help="PEM certificate chain; turns TLS on")
    tls_key: Path | None = option(None, help="PEM private key of the certificate")
    tls_client_ca: Path | None = option(None, help="PEM CA; only clients with a certificate it signed are let in")
    max_request_bytes: int = option(32 * 2**20, minimum=1, maximum=2**31 - 1, help="largest request message")
    max_connections: int = option(10_000, minimum=1, maximum=2**31 - 1, help="connections at once; more are closed")
    max_connection_age_s: float = option(
        300.0,
        minimum=0,
        maximum=1_000_000,
        help="seconds after which callers are asked to connect anew, when they may reach another server; 0 for never",
    )
    max_concurrent_calls: int = option(128, minimum=1, maximum=2**20, help="calls served at once; more are refused")
    drain_pause_s: float = option(
        0.5, minimum=0, help="seconds between telling health checks that the server stops and refusing new calls"
    )
    drain_s: float = option(20.0, minimum=0, help="seconds that calls have to end when the server stops")
    log_level: str = option("info", choices=logs.LEVELS, help="least level that is logged")
    log_format: str = option("json", choices=logs.FORMATS, help="form of the log on stderr")
    tracing: bool = option(False, help="export spans of calls by OTLP, as OpenTelemetry's variables say (OTEL_*)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together, only one is given")
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigError("--tls-client-ca needs --tls-cert and --tls-key")

    @property
    def metrics_address(self) -> str:
        """The address that the metrics' port is opened on."""
        return self.metrics_host or self.host


class Server:
    """One gRPC server with health, reflection, metrics and an orderly end.

    `add` services first. Then `run` serves until a signal; tests call `start`, `open` and `stop` in turn instead.

    As one of several `worker`s it shares the port with the others. Their supervisor tells when all of them are ready, and
    serves the metrics of all.
    """

    def __init__(self, config: ServerConfig, *, name: str, worker: Worker | None = None) -> None:
        self.metrics = Metrics()
        self.port = 0
        self.metrics_port: int | None = None
        self._config = config
        self._name = name
        self._worker = worker
        self._services: dict[str, Callable[[grpc.aio.Server], None]] = {}
        self._always: set[str] = set()
        self._before: dict[str, Callable[[float | None], None]] = {}
        self._claims: dict[str, Callable[[], bool]] = {}
        self._watched: set[str] = set()
        self._gate = Gate(config.max_concurrent_calls)
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._endpoint: Endpoint | None = None
        self._access: Access | None = None
        self._certificate: ServerCertificate | None = None
        self._watching: list[asyncio.Task[None]] = []
        self._tracing: Tracing | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._error: Exception | None = None

    def add(
        self,
        add_to_server: Callable[[Any, grpc.aio.Server], None],
        servicer: Any,
        service_full_name: str,
        *,
        always: Collection[str] = (),
        before: Mapping[str, Callable[[float | None], None]] = MappingProxyType({}),
    ) -> None:
        """Add a service, by the function that the protobuf compiler generated for it.

        Methods in `always` are answered in every state, before the server is warm and while it stops, and however busy it
        is: some protocols ask for readiness by such methods. `before` maps methods to functions that are called with the
        call's deadline before its message is read; they may raise ServiceError.
        """
        self._services[service_full_name] = lambda server: add_to_server(servicer, server)
        self._always.update(f"/{service_full_name}/{method}" for method in always)
        self._before.update({f"/{service_full_name}/{method}": check for method, check in before.items()})

    def claim(self, name: str, holds: Callable[[], bool], *, watched: bool = False) -> None:
        """Make health answer for another name, too: SERVING if `holds` returns true when the server becomes ready.

        With `watched`, `holds` is asked every half second, and health follows it.
        """
        self._claims[name] = holds
        if watched:
            self._watched.add(name)

    @property
    def ready(self) -> bool:
        """Whether calls are taken: from when the server is warm until it stops."""
        return self._gate.taking

    async def run(self, warm_up: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]) -> None:
        """Serve until SIGTERM or SIGINT, then drain and return; a second signal ends the process at once.

        Health says SERVING once `warm_up` has ended; raise what it raises, or the error that the server was to `end` with.
        `close` is called at the very end, unless a signal came before the warm-up had ended: then the process ends here, and
        its threads with it.
        """
        logs.configure(self._config.log_level, self._config.log_format)
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        signalled = self._ending = on_signals(self._at_second_signal)
        self._loop = asyncio.get_running_loop()
        try:
            await self.start()
            if await ended_before(signalled, warm_up()):
                # What stays for good is not looked through again: with it, a collection holds up all calls for some 50 ms.
                gc.collect()
                gc.freeze()
                await self.open()
                await signalled.wait()
        finally:
            try:
                await self.stop()
            finally:
                if self._gate.opened or self._error or not signalled.is_set():
                    await close()
        _log.info("stopped", extra={"server": self._name})
        if self._error:
            raise self._error
        if not self._gate.opened:
            # A thread that warms up can't be stopped and may take minutes, for which the interpreter would wait.
            os._exit(0)

    def end(self, error: Exception) -> None:
        """Have `run` end in order, as by a signal, and raise the error; nothing happens if it ends already.

        Any thread may call it, from when `run` calls `warm_up` until it returns. It does not count as a signal.
        """
        assert self._loop is not None, "`run` runs"
        self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: Exception) -> None:
        assert self._ending is not None, "`run` runs"
        if not self._ending.is_set():
            self._error = error
            self._ending.set()

    async def start(self) -> None:
        """Listen; answer health checks with NOT_SERVING and calls with NOT_READY. Raise ConfigError if that cannot be done."""
        self._warn()
        self._access = Access(self._config, self.metrics, certificates=self._config.tls_client_ca is not None)
        self._tracing = tracing.start(self._name) if self._config.tracing else None
        self._server = self._build(self._access)
        self.port = self._bind(self._server)
        if self._config.metrics_port is not None:
            host, port = (_LOOPBACK, 0) if self._worker else (self._config.metrics_address, self._config.metrics_port)
            self._endpoint = Endpoint(self.metrics.registry, host=host, port=port)
            self.metrics_port = self._endpoint.port
        await self._set_health(_NOT_SERVING)
        await self._server.start()
        self._watching = [asyncio.create_task(self._access.watch())]
        if self._certificate:
            self._watching.append(asyncio.create_task(self._certificate.watch()))
        if self._watched:
            self._watching.append(asyncio.create_task(self._watch_claims()))
        _log.info("listening", extra=self._address())

    async def open(self) -> None:
        """Take calls, tell health checks, and write the port file; a worker tells its supervisor instead, which writes it."""
        self._gate.opened = True
        await self._set_health(_SERVING)
        if self._worker:
            self._worker.tell(Ready(self.metrics_port))
            return
        ports.write(self._config.port_file, port=self.port, metrics_port=self.metrics_port)
        _log.info("ready", extra=self._address())

    async def stop(self) -> None:
        """Tell health checks, wait for load balancers to hear of it, then refuse new calls and let the others end.

        Calls that still run after `drain_s` end with SHUTTING_DOWN.
        """
        await self._health.enter_graceful_shutdown()
        if self._gate.opened:
            await self._pause()
        if self._server:
            await self._drain()
            await self._server.stop(_LAST_BYTES_S)
        for task in self._watching:
            task.cancel()
        if self._watching:
            await asyncio.wait(self._watching)
        access, self._access = self._access, None
        if access:
            await asyncio.to_thread(access.close)
        if self._tracing:
            await asyncio.to_thread(self._tracing.stop)
        if self._endpoint:
            await asyncio.to_thread(self._endpoint.stop)

    async def _drain(self) -> None:
        """End the calls before gRPC's own stop, which would answer those just arriving with CANCELLED.

        Refusing calls a moment longer gives those that are on their way a reason, and sends callers who try again at once
        to another server.
        """
        _log.info("draining", extra={"calls": self._gate.calls})
        if not await self._gate.drain(self._config.drain_s):
            _log.warning("calls were still running at the end of the drain")
        if self._gate.opened:
            await self._refuse()

    async def _pause(self) -> None:
        """Serve on, for as long as load balancers take to hear that the server stops."""
        await asyncio.sleep(self._config.drain_pause_s)

    async def _refuse(self) -> None:
        """Refuse calls a moment longer."""
        await asyncio.sleep(_REFUSING_S)

    def _at_second_signal(self, signum: signal.Signals) -> None:
        # A worker gets a signal to its process group twice, the second time from its supervisor, which has other means to end it.
        if not self._worker:
            os._exit(128 + signum)

    def _build(self, access: Access) -> grpc.aio.Server:
        config = self._config
        interceptor = Interceptor(
            self._gate,
            self.metrics,
            access,
            always=self._always,
            before=self._before,
            max_streams=_MAX_STREAMS,
            tracing=self._tracing,
        )
        server = grpc.aio.server(
            interceptors=(interceptor,),
            options=_channel_options(
                config, ports.make_room(config.max_connections), shares_port=self._worker is not None
            ),
        )
        for add_to in self._services.values():
            add_to(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if config.reflection:
            reflection.add_to(server, (*self._services, health.SERVICE_NAME))
        return server

    def _warn(self) -> None:
        """Say what is open to others and should not be."""
        config = self._config
        if not config.tls_cert and config.asks_who_calls:
            _log.warning("tokens travel in the clear, for TLS is off")
        if ports.is_loopback(config.host):
            return
        if not config.tls_cert:
            _log.warning("TLS IS OFF on an address that others reach: photos and answers travel in the clear")
        if not (config.asks_who_calls or config.tls_client_ca):
            _log.warning("ANYBODY MAY DO EVERYTHING on an address that others reach: no caller has to say who it is")

    def _bind(self, server: grpc.aio.Server) -> int:
        host, port = self._config.host, self._config.port
        address = ports.address(host, port)
        if self._worker is None:
            ports.check_free(host, port)
        certificate = self._certificate = _certificate(self._config)
        if certificate:
            certificate.measure(self.metrics.registry)
        try:
            if certificate:
                return server.add_secure_port(address, certificate.credentials())
            return server.add_insecure_port(address)
        except RuntimeError as error:
            raise ports.cannot_listen(host, port) from error

    async def _set_health(self, status: Any) -> None:
        for service in ("", *self._services):
            await self._health.set(service, status)
        for name, holds in self._claims.items():
            await self._health.set(name, status if holds() else _NOT_SERVING)

    async def _watch_claims(self) -> None:
        """Tell health checks when a claim that is watched comes to hold, or does no more, until cancelled."""
        while True:
            await asyncio.sleep(_CLAIMS_S)
            if self._gate.opened:
                for name in self._watched:
                    await self._health.set(name, _SERVING if self._claims[name]() else _NOT_SERVING)

    def _address(self) -> dict[str, Any]:
        return {
            "server": self._name,
            "host": self._config.host,
            "port": self.port,
            "metrics_port": self.metrics_port,
            "tls": self._config.tls_cert is not None,
        }


def _channel_options(config: ServerConfig, connections: int, *, shares_port: bool) -> list[tuple[str, Any]]:
    return [
        *_age_options(config.max_connection_age_s),
        ("grpc.max_receive_message_length", config.max_request_bytes),
        # gRPC must not limit all calls together: whoever held them would keep health checks out. The gate and places limit them.
        ("grpc.max_concurrent_streams", config.max_concurrent_calls + _HTTP2_STREAMS_BESIDES_CALLS),
        # Without a limit, whoever opens connections takes all the process's file descriptors, and nobody else gets in.
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.server.max_pending_requests", _MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
        # A second server on the port must fail, not share its calls in silence.
        ("grpc.so_reuseport", int(shares_port)),
        # Clients may ping an idle connection; by default gRPC takes more than one ping in 5 minutes for an attack.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_INTERVAL_MS),
    ]


def _age_options(age_s: float) -> list[tuple[str, Any]]:
    if not age_s:
        return []
    return [
        ("grpc.max_connection_age_ms", max(1, round(1e3 * age_s))),
        ("grpc.max_connection_age_grace_ms", 1000 * _OLD_CONNECTION_S),
    ]


def _certificate(config: ServerConfig) -> ServerCertificate | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    return ServerCertificate(config.tls_cert, config.tls_key, config.tls_client_ca)
