"""A tiny service on svckit: the example the tests of the server run, as a process of its own or in theirs.

It speaks the embedder's protocol. A photo whose content is a number is "embedded" as that number, after so many
milliseconds of work in the batcher's thread. GetModel tells, as the model's dimension, how many items that was so far.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from svckit import cli, config, supervisor
from svckit.batcher import Batcher
from svckit.errors import Reason, ServiceError, Violation
from svckit.interceptor import deadline
from svckit.server import Server, ServerConfig
from svckit.worker import Worker

SERVICE = embedder_pb2.DESCRIPTOR.services_by_name["EmbedderService"].full_name


@dataclass(frozen=True, kw_only=True)
class EchoConfig(ServerConfig):
    max_queue: int = config.option(10_000, minimum=1, help="items that may wait")
    warm_up: str = config.option(
        "quick", choices=("quick", "never", "waits", "fails", "breaks", "dies"), help="how the warm-up goes"
    )
    pauses_until: Path | None = config.option(None, help="file that ends the pause before the drain, once it is there")
    refuses_until: Path | None = config.option(None, help="file that ends the refusing after it, once it is there")
    gives_up_on: Path | None = config.option(None, help="file on which the server ends with an error, once it is there")
    fails_with: Path | None = config.option(None, help="file with which the warm-up fails while it is there")


class Backend:
    def __init__(self) -> None:
        self.items = 0

    def run(self, numbers: list[int]) -> list[list[float]]:
        self.items += len(numbers)
        time.sleep(sum(numbers) / 1e3)
        return [[float(number)] for number in numbers]


class Echo(embedder_pb2_grpc.EmbedderServiceServicer):
    def __init__(self, backend: Backend, batcher: Batcher[int, list[float]]) -> None:
        self._backend = backend
        self._batcher = batcher

    async def Embed(self, request, context):  # noqa: N802 (the protocol's name)
        numbers = _numbers(request)
        batched = await self._batcher.submit(numbers, deadline=deadline(context))
        return embedder_pb2.EmbedResponse(embeddings=wire.pack("echo", batched.outputs))

    async def GetModel(self, request, context):  # noqa: N802 (the protocol's name)
        return embedder_pb2.GetModelResponse(model=embedder_pb2.Model(name="echo", dimension=self._backend.items))


def _numbers(request: embedder_pb2.EmbedRequest) -> list[int]:
    if not request.images:
        raise ServiceError(Reason.INVALID_IMAGE_COUNT, "no images", metadata={"max_images": "8"})
    bad = [
        Violation(f"images[{i}].content", "IMAGE_FORMAT", f"not a number: {image.content!r}")
        for i, image in enumerate(request.images)
        if not image.content.isdigit()
    ]
    if bad:
        raise ServiceError(Reason.INVALID_IMAGE, f"{len(bad)} of {len(request.images)} images are bad", violations=bad)
    return [int(image.content) for image in request.images]


def build(settings: EchoConfig, worker: Worker | None = None) -> tuple[Server, Batcher[int, list[float]]]:
    server = Server(settings, name="echo", worker=worker)
    backend = Backend()
    batcher = server.metrics.batcher("echo", backend.run, max_batch=4, max_queue=settings.max_queue, stage="work")
    server.add(embedder_pb2_grpc.add_EmbedderServiceServicer_to_server, Echo(backend, batcher), SERVICE)
    return server, batcher


async def warm_up(settings: EchoConfig) -> None:
    if settings.warm_up == "never":
        await asyncio.to_thread(threading.Event().wait)
    if settings.warm_up == "waits":
        await asyncio.Event().wait()
    if settings.warm_up == "fails" or (settings.fails_with and settings.fails_with.exists()):
        raise cli.CommandError("the model is corrupt")
    if settings.warm_up == "breaks":
        raise ZeroDivisionError("nobody thought of this")
    if settings.warm_up == "dies":
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    supervisor.log_from_the_start("ECHO", sys.argv)
    parser = cli.Parser()
    config.add_arguments(parser, EchoConfig, "ECHO")
    supervisor.serve(serve, EchoConfig, "ECHO", parser.parse_args(), "echo")


async def _appears(file: Path) -> None:
    while not file.exists():  # noqa: ASYNC110, ASYNC240 (nothing tells of it)
        await asyncio.sleep(0.01)


async def serve(settings: EchoConfig, worker: Worker | None) -> None:
    for step, file in (("_pause", settings.pauses_until), ("_refuse", settings.refuses_until)):
        if file:
            setattr(Server, step, staticmethod(partial(_appears, file)))
    server, batcher = build(settings, worker)

    async def close() -> None:
        await batcher.close()
        logging.getLogger("echo").info("closed", extra={"frozen": gc.get_freeze_count()})

    def give_up() -> None:
        asyncio.run(_appears(settings.gives_up_on))
        server.end(cli.CommandError("the disk is gone"))
        logging.getLogger("echo").info("given up")

    async def begin() -> None:
        if settings.gives_up_on:
            threading.Thread(target=give_up, daemon=True).start()
        await warm_up(settings)

    await server.run(begin, close)


if __name__ == "__main__":
    cli.run(main, "echo")
