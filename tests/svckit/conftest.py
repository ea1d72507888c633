"""The example service, in this process or in one of its own."""

import importlib.util
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest
from vmmr.embedder.v1 import embedder_pb2_grpc

ECHO = Path(__file__).with_name("echo.py")


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


@pytest.fixture
def spawn(run):
    """Starts the example service with the given flags, as a process."""
    return partial(run, ECHO)


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    return path
