"""Real servers in this process, with scripted servicers: what a client meets."""

import asyncio
import os
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import grpc
import numpy as np
import pytest
import vmmr
from grpc_status import rpc_status
from vmmr import wire
from vmmr._retries import Retries
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from vmmr.embedding.v1 import embedding_pb2
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from svckit.errors import Reason, ServiceError, Violation
from svckit.status import status_of
from tests.conftest import TIMEOUT_S

COMMAND = str(Path(sys.executable).parent / "vmmr")
MODEL = "ab" * 32
DIMENSION = 4


Behaviour = Callable[[Any, grpc.ServicerContext], Any]
"""Gives a reply, or None for the usual one, or aborts."""


@dataclass(frozen=True)
class Received:
    """A call as a service saw it."""

    method: str
    request: Any
    metadata: dict[str, Any]
    time_left_s: float


@dataclass
class Script:
    """What a fake service has received, and what is to become of calls instead of an answer."""

    received: list[Received] = field(default_factory=list)
    behaviours: deque[Behaviour] = field(default_factory=deque)
    """Of the next calls."""
    marked: dict[bytes, Behaviour] = field(default_factory=dict)
    """Of calls with these bytes in them."""
    lock: Lock = field(default_factory=Lock)

    def then(self, *behaviours: Behaviour) -> None:
        self.behaviours.extend(behaviours)

    def of(self, method: str) -> list[Received]:
        return [call for call in self.received if call.method == method]

    def play(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        """The scripted reply, or None."""
        with self.lock:
            metadata = dict(context.invocation_metadata())
            self.received.append(Received(method, request, metadata, context.time_remaining()))
            behaviour = self._behaviour(request)
        return behaviour and behaviour(request, context)

    def _behaviour(self, request: Any) -> Behaviour | None:
        for mark, behaviour in self.marked.items():
            if mark in request.SerializeToString():
                return behaviour
        return self.behaviours.popleft() if self.behaviours else None


class FakeEmbedder(embedder_pb2_grpc.EmbedderServiceServicer):
    """Embeds a photo whose content is the number n as (n, 0, 0, 0); a photo that is no number is a bad one.

    A second car of a photo is (n + 1, 0, 0, 0), and so on.
    """

    def __init__(self) -> None:
        self.script = Script()
        self.cars: dict[int, list[embedder_pb2.Detection]] | None = None
        """The cars of photos, by their numbers, where they are not the usual one. None: an embedder of an earlier version."""
        self.limits = embedder_pb2.Limits(
            max_images=8,
            max_image_bytes=2**20,
            max_image_pixels=2**24,
            max_aspect_ratio=10,
            max_request_bytes=2**21,
        )

    def Embed(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        return self.script.play("Embed", request, context) or self.embed(request, context)

    def embed(self, request: Any, context: grpc.ServicerContext) -> Any:
        bad = [index for index, image in enumerate(request.images) if not image.content.strip(b" ").isdigit()]
        if bad:
            abort(context, ServiceError(Reason.INVALID_IMAGE, "bad photos", violations=[violation(i) for i in bad]))
        rows = [row for n, image in enumerate(request.images) for row in self.rows(n, image)]
        vectors = np.zeros((len(rows), DIMENSION), np.float32)
        vectors[:, 0] = [value for value, _ in rows]
        parts = None if self.cars is None else [part for _, part in rows]
        times = embedder_pb2.EmbedTimes(decode_ms=1, queue_ms=2, infer_ms=3)
        return embedder_pb2.EmbedResponse(embeddings=wire.pack(MODEL, vectors), times=times, parts=parts)

    def rows(self, n: int, image: Any) -> list[tuple[int, Any]]:
        """The first value of each row of a photo, and the part that it is of."""
        return [
            (int(image.content) + car, embedder_pb2.EmbeddedPart(image=n, cut=cut))
            for car, cut in enumerate(self.cuts(image))
        ]

    def cuts(self, image: Any) -> list[Any]:
        whole = {"left": 0, "top": 0, "right": 1, "bottom": 1}
        if image.HasField("crop"):
            box = image.crop
            return [embedding_pb2.Cut(left=box.left, top=box.top, right=box.right, bottom=box.bottom)]
        if self.cars is None or image.subject == embedder_pb2.SUBJECT_WHOLE:
            return [embedding_pb2.Cut(**whole)]
        found = self.found(image)
        if not found:
            return [embedding_pb2.Cut(**whole, no_car_found=True)]
        return [cut(each) for each in found[: None if image.subject == embedder_pb2.SUBJECT_EVERY_CAR else 1]]

    def found(self, image: Any) -> list[Any]:
        assert self.cars is not None
        return self.cars.get(int(image.content), [car(0.25, 0.875)])

    def Detect(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        return self.script.play("Detect", request, context) or embedder_pb2.DetectResponse(
            detections=[embedder_pb2.Detections(cars=self.found(image)) for image in request.images]
        )

    def GetModel(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        return self.script.play("GetModel", request, context) or embedder_pb2.GetModelResponse(
            model=embedder_pb2.Model(
                fingerprint=MODEL,
                name="fake-int8",
                dimension=DIMENSION,
                precision="int8",
                input_size=224,
                resize="squash",
                normalized=True,
                provider="CPUExecutionProvider",
            ),
            limits=self.limits,
        )


class FakeSearch(search_pb2_grpc.SearchServiceServicer, gallery_pb2_grpc.GalleryServiceServicer):
    """Answers the embedding (n, 0, 0, 0) with the label `honda_pilot_<2000 + n>`. What is written is kept, and not searched."""

    def __init__(self) -> None:
        self.script = Script()
        self.limits = search_pb2.QueryLimits(
            max_queries=16, max_k=100, max_request_bytes=2**20, max_neighbours=1000, max_shard_timeout_ms=9000
        )
        self.shards_answered = 2
        self.model = MODEL
        self.problem = ""
        self.lost_entries = 0
        self.calibration: search_pb2.Calibration | None = None
        self.cuts: search_pb2.CutCounts | None = None
        self.items: dict[str, tuple[gallery_pb2.Item, float]] = {}
        """What was added, by id, with its embedding's first value."""
        self.sequence = 0
        self.says: dict[int, dict[str, Any]] = {}
        """Of the classification of n: its fields, where they are not the usual ones."""
        self.near: dict[int, list[search_pb2.Neighbour]] = {}
        """What a search for n finds, where that is not the usual photo."""

    def Search(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        return self.script.play("Search", request, context) or search_pb2.SearchResponse(
            results=[search_pb2.Neighbours(neighbours=self.near.get(n, [neighbour(n)])) for n in numbers(request)],
            provenance=self.provenance(),
            times=search_pb2.SearchTimes(queue_ms=1, search_ms=2),
        )

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        cars = numbers(request)[:1] if request.fuse else numbers(request)
        empty = [cut.no_car_found for cut in request.cuts] or [False] * len(cars)
        without = {True: {"no_car_found": True, "verdict": search_pb2.VERDICT_UNKNOWN}, False: {}}
        empty = [all(empty)] if request.fuse else empty
        return self.script.play("Classify", request, context) or search_pb2.ClassifyResponse(
            results=[
                classification(n, **self.says.get(n, {}), **without[no_car])
                for n, no_car in zip(cars, empty, strict=True)
            ],
            provenance=self.provenance(),
            times=search_pb2.SearchTimes(queue_ms=1, search_ms=2, vote_ms=3),
        )

    def GetIndex(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        index = search_pb2.Index(
            version="000001",
            model=self.model,
            dimension=DIMENSION,
            items=30,
            labels=3,
            shards=2,
            factory="Flat",
            metric=search_pb2.METRIC_INNER_PRODUCT,
            k=5,
            temperature=0.05,
            nprobe=8,
            calibration=self.calibration,
            problem=self.problem,
            lost_entries=self.lost_entries,
            cuts=self.cuts,
        )
        index.create_time.FromJsonString("2026-11-22T10:00:00Z")
        reply = search_pb2.GetIndexResponse(index=index, limits=self.limits)
        return self.script.play("GetIndex", request, context) or reply

    def provenance(self) -> search_pb2.Provenance:
        return search_pb2.Provenance(
            model=MODEL, index_version="000001", shards_answered=self.shards_answered, shards_total=2
        )

    def ListLabels(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        first = int(request.page_token or 0)
        entries = [search_pb2.LabelCount(label=label(n), items=10) for n in range(first, min(first + 2, 3))]
        page = search_pb2.ListLabelsResponse(labels=entries, next_page_token="2" if first == 0 else "")
        return self.script.play("ListLabels", request, context) or page

    def AddItems(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        return self.script.play("AddItems", request, context) or self.add_items(request)

    def add_items(self, request: Any) -> Any:
        with self.script.lock:
            counts = dict.fromkeys(("added", "replaced", "unchanged"), 0)
            for item, value in zip(request.items, rows(request.embeddings), strict=True):
                before = self.items.get(item.item_id)
                counts["unchanged" if before == (item, value) else "replaced" if before else "added"] += 1
                self.items[item.item_id] = (item, value)
            self.sequence += 1
            return gallery_pb2.AddItemsResponse(**counts, journal_sequence=self.sequence)

    def DeleteItems(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        self.script.play("DeleteItems", request, context)
        gone = [
            item_id
            for item_id, (item, _) in self.items.items()
            if item_id in request.item_ids.item_ids
            or item.label == request.label
            or (request.batch_id and item.batch_id == request.batch_id)
        ]
        for item_id in gone:
            del self.items[item_id]
        self.sequence += 1
        return gallery_pb2.DeleteItemsResponse(deleted=len(gone), journal_sequence=self.sequence)

    def GetItem(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        self.script.play("GetItem", request, context)
        if request.item_id not in self.items:
            abort(context, ServiceError(Reason.ITEM_NOT_FOUND, f"there is no item {request.item_id}"))
        return gallery_pb2.GetItemResponse(item=self.items[request.item_id][0])

    def ListItems(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        """Two a page."""
        self.script.play("ListItems", request, context)
        wanted = [
            item
            for _, (item, _) in sorted(self.items.items())
            if item.item_id > request.page_token
            and (not request.batch_id or item.batch_id == request.batch_id)
            and (not request.filter.labels or item.label in request.filter.labels)
        ]
        token = wanted[1].item_id if len(wanted) > 2 else ""
        return gallery_pb2.ListItemsResponse(items=wanted[:2], next_page_token=token)

    def Compact(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        reply = gallery_pb2.CompactResponse(
            index_version="000002", items=len(self.items), journal_sequence=self.sequence
        )
        reply.create_time.FromJsonString("2026-11-28T10:00:00Z")
        return self.script.play("Compact", request, context) or reply

    def ListVersions(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # the method of the service
        good = gallery_pb2.Version(
            index_version="000002", items=7, model=MODEL, journal_sequence=3, current=True, in_use=True
        )
        good.create_time.FromJsonString("2026-11-28T10:00:00Z")
        return self.script.play("ListVersions", request, context) or gallery_pb2.ListVersionsResponse(
            versions=[gallery_pb2.Version(index_version="000001"), good],
            journal_sequence=5,
            journal_depth=2,
            journal_bytes=4096,
        )


def car(left: float, score: float) -> embedder_pb2.Detection:
    """A car that reaches from there to the photo's middle, and as far beyond."""
    box = embedder_pb2.Box(left=left, top=left, right=1 - left, bottom=1 - left)
    return embedder_pb2.Detection(box=box, score=score)


def cut(found: embedder_pb2.Detection) -> embedding_pb2.Cut:
    box = found.box
    return embedding_pb2.Cut(left=box.left, top=box.top, right=box.right, bottom=box.bottom, car_score=found.score)


def rows(embeddings: Any) -> list[float]:
    return [float(row[0]) for row in wire.unpack(embeddings)]


def numbers(request: Any) -> list[int]:
    return [int(row[0]) for row in wire.unpack(request.queries)]


def label(n: int) -> search_pb2.Label:
    return search_pb2.Label(label=f"honda_pilot_{2000 + n}", make="honda", model="pilot", year=2000 + n)


def neighbour(n: int, score: float = 0.9) -> search_pb2.Neighbour:
    return search_pb2.Neighbour(item_id=f"item-{n}", label=label(n), uri=f"photos/{n}.jpg", score=score)


def classification(n: int, **others: Any) -> search_pb2.Classification:
    usual = {"make_confidence": 0.9, "model_confidence": 0.8, "label_confidence": 0.7, "years_confidence": 0.7}
    years = {"first_year": 2000 + n, "last_year": 2000 + n, "verdict": search_pb2.VERDICT_KNOWN}
    return search_pb2.Classification(
        answer=label(n),
        makes=[search_pb2.Candidate(make="honda", confidence=0.9)],
        models=[search_pb2.Candidate(make="honda", model="pilot", confidence=0.8)],
        labels=[
            search_pb2.Candidate(
                make="honda", model="pilot", label=label(n), confidence=0.7, nearest_score=0.75, mean_similarity=0.0
            )
        ],
        neighbours=[neighbour(n), neighbour(n + 1)],
        **{**usual, **years, **others},
    )


def violation(index: int) -> Violation:
    return Violation(f"images[{index}].content", "IMAGE_FORMAT", "not an image")


def abort(context: grpc.ServicerContext, error: ServiceError) -> None:
    context.abort_with_status(rpc_status.to_status(status_of(error, "from-the-server")))


@dataclass(frozen=True)
class Services:
    """A running pair."""

    embedder: FakeEmbedder
    search: FakeSearch
    embedder_target: str
    search_target: str

    @property
    def targets(self) -> tuple[str, str]:
        return self.embedder_target, self.search_target


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server for a servicer on a free port and gives its target."""
    servers: list[grpc.Server] = []

    def start(
        servicer: Any, credentials: grpc.ServerCredentials | None = None, options: Sequence[tuple[str, Any]] = ()
    ) -> str:
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0), *options])
        add(servicer, server)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for stopping in [server.stop(None) for server in servers]:
        stopping.wait()


def add(servicer: Any, server: grpc.Server) -> None:
    if isinstance(servicer, FakeEmbedder):
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(servicer, server)
    else:
        search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, server)
        gallery_pb2_grpc.add_GalleryServiceServicer_to_server(servicer, server)


@pytest.fixture
def services(serve: Serve) -> Services:
    embedder, search = FakeEmbedder(), FakeSearch()
    return Services(embedder, search, serve(embedder), serve(search))


@pytest.fixture
def fail() -> Callable[..., Behaviour]:
    """A behaviour for a script: the call fails as the services' interceptor would make it fail."""

    def behaviour(reason: str, message: str = "on purpose", **settings: Any) -> Behaviour:
        return lambda _, context: abort(context, ServiceError(Reason(reason), message, **settings))

    return behaviour


class Blocking:
    """An AsyncClient that is used as a Client is, so that one test says what both do."""

    def __init__(self, client: vmmr.AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._runner.run(gathered(method(*args, **kwargs)))


async def gathered(result: Awaitable[Any] | AsyncIterator[Any]) -> Any:
    return [each async for each in result] if isinstance(result, AsyncIterator) else await result


@pytest.fixture(params=["threads", "asyncio"])
def connect(request: pytest.FixtureRequest, serve: Serve) -> Iterator[Callable[..., Any]]:
    """Makes clients of either kind. Their connections end before the servers do."""
    with ExitStack() as stack:
        if request.param == "threads":
            yield lambda *args, **kwargs: stack.enter_context(vmmr.Client(*args, **kwargs))
            return
        runner = stack.enter_context(asyncio.Runner())

        def connect(*args: Any, **kwargs: Any) -> Blocking:
            client = vmmr.AsyncClient(*args, **kwargs)
            stack.callback(lambda: runner.run(client.close()))
            return Blocking(client, runner)

        yield connect


@pytest.fixture
def client(connect: Callable[..., Any], services: Services) -> Any:
    """A client of either kind, connected to the services, with more time than any machine needs."""
    return connect(*services.targets, timeout_s=TIMEOUT_S)


@pytest.fixture(autouse=True)
def time_to_answer_for_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that are asked about TLS answer, however late this machine is."""
    monkeypatch.setattr("vmmr._connection._PROBE_S", TIMEOUT_S)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`attempts(2)`: clients try as often, without a pause, and raise what they heard last: at a deadline, that is left to chance."""

    def allow(most: int) -> None:
        def pause_s(retries: Retries, error: vmmr.CallError) -> float:
            if retries.attempts + 1 == most:
                raise error
            retries.attempts += 1
            return 0.0

        monkeypatch.setattr(Retries, "pause_s", pause_s)

    return allow


TRIED_TWICE = """
import runpy, sys
from vmmr._retries import Retries

asked = Retries.pause_s

def pause_s(retries, error):
    if retries.attempts:
        raise error
    return asked(retries, error)

Retries.pause_s = pause_s
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a command, `python -c TRIED_TWICE COMMAND ...`, that makes two attempts at a call, and tells what it heard last."""


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(services) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("VMMR_", "GRPC_VERBOSITY"))}
    targets = {"VMMR_EMBEDDER": services.embedder_target, "VMMR_SEARCH": services.search_target}
    return own | targets | {"VMMR_TIMEOUT": str(TIMEOUT_S)}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """Runs the command in a folder with the photos 1.jpg to 3.jpg, and bad.jpg."""
    for n in (1, 2, 3):
        (tmp_path / f"{n}.jpg").write_bytes(b"%d" % n)
    (tmp_path / "bad.jpg").write_bytes(b"bad")

    def run(
        *arguments: str, stdin: str = "", command: Sequence[str] = (COMMAND,), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            env=environment | variables,
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT_S,
            check=False,
        )

    return run
