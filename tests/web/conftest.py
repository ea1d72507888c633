"""The door in this process, before scripted services: real sockets, real HTTP."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="the page's extra, web, is not installed")

from tests.client import conftest as scripted
from tests.conftest import TIMEOUT_S
from web.api import service
from web.app import build
from web.config import WebConfig
from web.door import door as doors
from web.door import process
from web.door.access import Access
from web.door.door import Door, connected
from web.door.kept import Kept
from web.door.metrics import WebMetrics
from web.door.rates import Rates

serve, services, fail = scripted.serve, scripted.services, scripted.fail

TOKEN = "the-token"


@dataclass
class Running:
    """A door that is open, and a client that talks to it as a program does."""

    door: Door
    metrics: WebMetrics
    port: int
    http: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Thread:
    """Runs the door on an event loop in a thread of its own."""

    def __init__(self, settings: WebConfig, token: str | None, services_token: str | None) -> None:
        self.door: Door | None = None
        self.metrics = WebMetrics()
        self.port = 0
        self._settings, self._token, self._services_token = settings, token, services_token
        self._up = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        self._thread.start()
        assert self._up.wait(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(setattr, self._server, "should_exit", True)
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        settings = self._settings
        async with connected(settings, self._services_token) as client:
            access, rates = Access(self._token), Rates(settings.calls_per_minute)
            self.door = Door(settings, client, access, rates, Kept(settings.keep_bytes))
            listening = process._listen(settings)
            self.port = listening.getsockname()[1]
            self._server = process._Server(process._uvicorn_config(build(self.door, self.metrics), settings, None))
            serving = asyncio.ensure_future(self._server.serve(sockets=[listening]))
            await self._server.started_event.wait()
            self._up.set()
            await serving


@pytest.fixture(autouse=True)
def time_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services that are there answer, however late this machine is."""
    monkeypatch.setattr(doors, "_RECONNECT_S", TIMEOUT_S)
    monkeypatch.setattr(service, "_READY_S", TIMEOUT_S)


@pytest.fixture
def first_answer_counts(time_to_answer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that can't be reached is not asked again: at a deadline, what is told of it is left to chance."""
    monkeypatch.setattr(doors, "_RECONNECT_S", 0.01)


Opening = Callable[..., Running]


@pytest.fixture
def awaited():
    """`awaited(coroutine)` runs it in a thread of its own: Playwright keeps a loop running in the tests'."""
    with ThreadPoolExecutor(1) as thread:
        yield lambda coroutine: thread.submit(asyncio.run, coroutine).result()


@pytest.fixture
def opened(services) -> Iterator[Opening]:
    """`opened(setting=...)` opens a door before the scripted services."""
    with ExitStack() as stack:

        def start(*, token: str | None = TOKEN, headers: dict[str, str] | None = None, **settings: Any) -> Running:
            embedder, search = services.targets
            wanted = {
                "port": 0,
                "embedder": embedder,
                "search": search,
                "calls_per_minute": 0,
                "drain_s": 1.0,
                **settings,
            }
            thread = _Thread(WebConfig(**wanted), token, None)
            thread.start()
            stack.callback(thread.stop)
            http = stack.enter_context(
                httpx.Client(base_url=f"http://127.0.0.1:{thread.port}", headers=headers, timeout=60)
            )
            return Running(thread.door, thread.metrics, thread.port, http)

        yield start


@pytest.fixture
def door(opened) -> Running:
    return opened()


@pytest.fixture
def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Stuck:
    """The embedder's next call, which waits until it is let go."""

    waits: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when its caller has left."""
    leave: threading.Event = field(default_factory=threading.Event)

    def __call__(self, _: Any, context: Any) -> None:
        context.add_callback(self.left.set)
        self.waits.set()
        assert self.leave.wait(60)


@pytest.fixture
def stuck(services) -> Iterator[Stuck]:
    """The embedder's next call waits for `stuck.leave`."""
    behaviour = Stuck()
    services.embedder.script.then(behaviour)
    yield behaviour
    behaviour.leave.set()


@pytest.fixture
def web_server() -> Iterator[Callable[[dict[str, bytes]], str]]:
    """`web_server({"/path": content})` serves photos on this machine; gives its URL."""
    with ExitStack() as stack:

        def start(contents: dict[str, bytes]) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:  # http.server's name
                    content = contents[self.path]
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

                def log_message(self, *_: object) -> None:
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start
