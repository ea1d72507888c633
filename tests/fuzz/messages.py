"""The message of every RPC, to the servicers that both servers have, on a real model and a real gallery: an answer, or an error with a reason."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from vmmr.gallery.v1 import gallery_pb2
from vmmr.inference.v2 import inference_pb2, inference_pb2_grpc
from vmmr.search.v1 import search_pb2

from embedder_svc.network.detector import Detector
from embedder_svc.network.model import Model
from embedder_svc.serving.config import EmbedderConfig
from embedder_svc.serving.decoder import Decoder
from embedder_svc.serving.kserve import KServeService
from embedder_svc.serving.looking import Finder
from embedder_svc.serving.pipeline import Pipeline
from embedder_svc.serving.service import EmbedderService
from search_svc import __main__ as search
from search_svc.engine.local import LocalEngine
from search_svc.index.base import VersionBase
from search_svc.index.journal import Journal
from search_svc.index.journal_writer import JournalWriter
from search_svc.live.opening import Opener
from search_svc.serving.config import SearchConfig
from svckit.batcher import Batcher
from svckit.errors import Reason, ServiceError
from svckit.server import Server
from tests.embedder_svc import tiny_bundle
from tests.flips import scenes

_FILES = (embedder_pb2, inference_pb2, search_pb2, gallery_pb2)
METHODS = sorted(
    f"{service.full_name}/{method.name}"
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
"""All methods of all services. An input's first byte is the place in this list."""
_CALL_S = 30.0


class Message:
    """Answers a message as a server does, but for the connection. Compactions are refused: each would build a version."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._runner = asyncio.Runner()
        self._handlers = _Handlers()
        self._runner.run(self._open(folder))
        assert self._handlers.found.keys() == set(METHODS)

    def __call__(self, content: bytes) -> bool:
        """Return whether there was an answer, and no refusal."""
        if not content:
            return False
        handler = self._handlers.found[METHODS[content[0] % len(METHODS)]]
        try:
            request = handler.request_deserializer(content[1:])
        except DecodeError:
            return False  # the interceptor tells the caller
        with _expecting_reasons():
            reply = self._runner.run(handler.unary_unary(request, _Context()))
            handler.response_serializer(reply)
            return True
        return False

    def close(self) -> None:
        self._runner.close()

    async def _open(self, folder: Path) -> None:
        self._open_embedder(folder / "bundle")
        self._open_search(folder)

    def _open_embedder(self, bundle: Path) -> None:
        tiny_bundle.make(bundle, detector={})
        settings = EmbedderConfig(model=bundle, max_images=4, max_queue=32)
        model = Model.open(bundle, device="cpu", threads=1)
        decoder = Decoder(model.info.resizing, settings.limits, threads=1)
        detector = model.detector
        assert isinstance(detector, Detector)
        looking = Batcher(detector.find, max_batch=detector.max_batch, max_queue=32)
        finder = Finder(decoder, detector, looking, lambda: None)
        network = Batcher(lambda pixels: list(model.embed(pixels)), max_batch=model.max_batch, max_queue=32)
        pipeline = Pipeline(model, decoder, network, max_images=4, max_queue=32, finder=finder)
        native, kserve = EmbedderService(settings), KServeService(lambda: True)
        native.open(pipeline)
        kserve.open(pipeline)
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(native, self._handlers)
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(kserve, self._handlers)

    def _open_search(self, folder: Path) -> None:
        index = scenes.stopped(folder / "scene").index
        settings = SearchConfig(index=index, compact_at=0)
        server = Server(settings, name="search")
        journal, items = Journal.open(index), Journal.open(index)
        follower = search._follower(settings, Opener(index, LocalEngine.open, max_k=settings.max_k), journal)
        gallery = follower.gallery
        writer = JournalWriter(index, lambda: VersionBase(gallery.view.opened.version))
        writes = Batcher(writer.commit, max_batch=8, max_queue=settings.max_queue)
        queries = search._queries(settings, server.metrics, gallery)
        search._add_search_service(server, settings, follower, queries, lambda: "")
        search._add_gallery_service(server, settings, follower, items, writes=writes, compactor=_Compactor())
        for add_to in server._services.values():
            add_to(self._handlers)
        follower.start()


class _Compactor:
    problem = ""

    async def compact(self) -> None:
        raise ServiceError(Reason.COMPACTION_RUNNING, "not here")


@dataclass
class _Handlers:
    """Takes the place of the gRPC server that services are added to."""

    def __post_init__(self) -> None:
        self.found: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        del handlers  # the same once more, for servers of older versions

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.found |= {f"{service}/{name}": handler for name, handler in handlers.items()}


class _Context:
    """What servicers ask of a call."""

    time_remaining: Callable[[], float] = partial(float, _CALL_S)


@contextlib.contextmanager
def _expecting_reasons():
    """Pass over errors that have a reason, but for those that say that something is wrong with the server."""
    try:
        yield
    except ServiceError as error:
        if error.reason in (Reason.INTERNAL, Reason.GALLERY_DAMAGED, Reason.DEADLINE_EXCEEDED):
            raise
