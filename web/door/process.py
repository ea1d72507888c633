"""The life of the program: listen, serve, tell health checks that it stops, drain, stop."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from svckit import ports
from svckit.signals import on_signals
from svckit.tls import ServerCertificate
from web.config import WebConfig

_log = logging.getLogger(__name__)

_HEAD_S = 10.0
"""Seconds that a connection has to send the head of a request, from its start, or from the first byte after an answer."""
_IDLE_S = 65
"""Seconds that a connection may be silent after an answer: longer than the minute that proxies keep theirs for."""
_READ_S = 60.0
"""Seconds in which a caller must have read what waits to be sent, a piece of an answer."""
_MAX_HEAD_BYTES = 32 * 2**10
_MAX_CONNECTIONS = 1000


async def serve(
    app: Any,
    settings: WebConfig,
    *,
    metrics_port: int | None,
    certificate: ServerCertificate | None,
    stopping: Callable[[], None],
) -> None:
    """Serve the app until SIGTERM or SIGINT, then drain and return; a second signal ends the process at once.

    `stopping` is called when it is to stop, while it still serves: health checks must fail from then on.
    """
    # uvicorn tells of its own life, too, which would be the same lines again in other words.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    signalled = on_signals(_at_second_signal)
    listening = _listen(settings)
    port = listening.getsockname()[1]
    server = _Server(_uvicorn_config(app, settings, certificate))
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    watching = asyncio.ensure_future(certificate.watch()) if certificate else None
    await server.started_event.wait()
    ports.write(settings.port_file, port=port, metrics_port=metrics_port)
    about = {"server": "web", "host": settings.host, "port": port, "metrics_port": metrics_port}
    _log.info("ready", extra={**about, "tls": settings.tls_cert is not None})
    await signalled.wait()
    stopping()
    await asyncio.sleep(settings.drain_pause_s)
    _log.info("draining")
    server.should_exit = True
    await serving
    if watching:
        watching.cancel()
    _log.info("stopped", extra={"server": "web"})


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it serves, and leaves signals to us: it would end the process by the signal it got."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.started_event = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.started_event.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP, which ends a connection whose request has begun, and does not get to its body in time (slow-loris).

    It also ends one that does not read its answer. uvicorn itself ends one that is silent for `_IDLE_S` after an answer, and waits for
    the head of a request, and for whoever reads, forever.
    """

    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        if not self._asked():
            self._wait_for_head()
        super().data_received(data)
        if self._asked():
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Bytes behind the request, which are not all of another one.
        if not self._asked() and self.conn.trailing_data[0]:
            self._wait_for_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(_READ_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting_for_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def _asked(self) -> bool:
        """Return whether there is a request whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(_HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def _uvicorn_config(app: Any, settings: WebConfig, certificate: ServerCertificate | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=settings.proxies,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        # A password keeps OpenSSL from asking for one on the terminal.
        ssl_keyfile_password="" if settings.tls_key else None,
    )
    config.load()
    if certificate:
        assert config.ssl is not None
        certificate.renew(config.ssl)
    return config


def _listen(settings: WebConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=_MAX_CONNECTIONS)
    except OSError as error:
        raise ports.cannot_listen(settings.host, settings.port) from error
    # Connections inherit it. asyncio sets it only on sockets that were made with the protocol's number, which this one is not; and
    # without it the body of an answer waits for the caller to acknowledge its head, up to 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _at_second_signal(signum: signal.Signals) -> None:
    os._exit(128 + signum)
