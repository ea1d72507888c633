"""The example service, in this process or in one of its own."""

import importlib.util
import json
import subprocess
import sys
import threading
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Self

import grpc
import pytest
from vmmr.embedder.v1 import embedder_pb2_grpc

ECHO = Path(__file__).with_name("echo.py")
TIMEOUT_S = 30


@pytest.fixture(scope="session")
def echo():
    """The example service's module."""
    spec = importlib.util.spec_from_file_location("echo", ECHO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Served:
    """The example service in this process, with a channel and a stub to call it."""

    def __init__(self, server, batcher, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.batcher = batcher
        self.channel = channel
        self.stub = embedder_pb2_grpc.EmbedderServiceStub(channel)


@pytest.fixture
async def serve(echo):
    """Starts the example service with the given settings."""
    async with AsyncExitStack() as stack:

        async def start(*, warm: bool = True, **settings) -> Served:
            server, batcher = echo.build(echo.EchoConfig(**{"drain_pause_s": 0.0, **settings}))
            stack.push_async_callback(batcher.close)
            stack.push_async_callback(server.stop)
            await server.start()
            if warm:
                await server.open()
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
            await stack.enter_async_context(channel)
            return Served(server, batcher, channel)

        yield start


class Process:
    """The example service as a process; its log lines are read as they come."""

    def __init__(self, *flags: str) -> None:
        self.popen = subprocess.Popen(  # its own session, so that a test's Ctrl-C is for it alone
            [sys.executable, ECHO, *flags], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        self.popen.stderr.close()

    def logged(self, message: str) -> dict:
        """The first log line with the message, as soon as there is one."""
        with self._more:
            assert self._more.wait_for(lambda: self._find(message), TIMEOUT_S), self.lines
            return self._find(message)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        code = self.popen.wait(TIMEOUT_S)
        self._reader.join()
        return code

    def _find(self, message: str) -> dict | None:
        return next((line for line in map(_parsed, self.lines) if line.get("message") == message), None)

    def _read(self) -> None:
        for line in self.popen.stderr:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()


def _parsed(line: str) -> dict:
    return json.loads(line) if line.startswith("{") else {}


@pytest.fixture
def spawn():
    """Starts the example service with the given flags, as a process."""
    with ExitStack() as stack:
        yield lambda *flags: stack.enter_context(Process(*flags))
