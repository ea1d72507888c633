"""Make the requests, once, before anything is measured: ask the services, read or draw photos, embed them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, TypeVar

import grpc
import numpy as np
from vmmr import _calls, wire
from vmmr._batches import Limits, Packer, read_entry
from vmmr._calls import Call
from vmmr._connection import Connection
from vmmr._deadlines import within
from vmmr._flows import value
from vmmr._requests import embed
from vmmr._served import IndexInfo, ModelInfo
from vmmr._threads import blocking, run
from vmmr._types import Embeddings, Image

from loadtest import photos
from loadtest.photos import Photos
from loadtest.plan import KEEPALIVE_S, MOST_MESSAGE_BYTES, Plan
from loadtest.targets import search_request

T = TypeVar("T")

_PREPARE_S = 60.0
_EMBED_PHOTOS = 16


class CannotRunError(ValueError):
    """The services would refuse every call of the plan."""


@dataclass(frozen=True)
class Prepared:
    requests: tuple[bytes, ...]
    sends: dict[str, Any]
    served: dict[str, Any]


def prepare(plan: Plan) -> Prepared:
    """Return the requests of a plan. Raise CannotRunError or NoPhotosError, or a VmmrError of the services."""
    services = Services(plan)
    try:
        return _prepared(plan, services)
    finally:
        services.close()


def _prepared(plan: Plan, services: "Services") -> Prepared:
    served: dict[str, Any] = {}
    model = index = None
    if "embedder" in plan.services or plan.photos:
        model = services.model
        served["model"] = asdict(model)
        _check(plan.batch, model.limits.max_images, "the embedder", "photos")
    if "search" in plan.services:
        index = services.index
        served["index"] = asdict(index) | {"created": index.created.isoformat()}
        _check_queries(plan, index)
    if model and index and model.fingerprint != index.model:
        raise CannotRunError(
            f"the embedder serves the model {model.fingerprint[:12]}, but the index was built with {index.model[:12]}: serve that of the "
            "index, or embed the gallery anew for the embedder's with `vmmr-search migrate`"
        )
    requests, source = _embed_requests(plan, services) if "embedder" in plan.services else _queries(plan, services)
    limits = model.limits if model and "embedder" in plan.services else services.index.limits
    longest = max(map(len, requests))
    if longest > limits.max_request_bytes:
        raise CannotRunError(
            f"a request has {longest} bytes, the service accepts {limits.max_request_bytes}: give a smaller --batch"
        )
    sends = {"source": source, "requests": len(requests), "mean_bytes": sum(map(len, requests)) / len(requests)}
    return Prepared(requests, sends, served)


class Services:
    """The services, asked what they serve and for embeddings. Calls are retried, since they are not measured."""

    def __init__(self, plan: Plan) -> None:
        access = plan.access
        self._connection = Connection.to(
            grpc,
            {"embedder": access.embedder, "search": access.search},
            tls=access.tls,
            token=access.token,
            max_message_bytes=MOST_MESSAGE_BYTES,
            keepalive_s=KEEPALIVE_S,
        )
        self._plan_s = plan.timeout_s
        self._model: ModelInfo | None = None
        self._index: IndexInfo | None = None

    @property
    def model(self) -> ModelInfo:
        if self._model is None:
            self._model = self._ask(_calls.get_model(), self._plan_s)
        return self._model

    @property
    def index(self) -> IndexInfo:
        if self._index is None:
            self._index = self._ask(_calls.get_index(), self._plan_s)
        return self._index

    def embed(self, images: Sequence[Image]) -> Embeddings:
        return self._ask(_calls.embed(images), max(self._plan_s, _PREPARE_S))

    def close(self) -> None:
        self._connection.close()

    def _ask(self, call: Call[T], timeout_s: float) -> T:
        return run(value(call), blocking(self._connection, within(timeout_s)))


def _embed_requests(plan: Plan, services: Services) -> tuple[tuple[bytes, ...], str]:
    pictures = _photos(plan, services)
    images = [Image(content, subject=plan.subject) for content in pictures.contents]
    return tuple(embed(batch).SerializeToString() for batch in batches(images, plan.batch)), pictures.source


def _queries(plan: Plan, services: Services) -> tuple[tuple[bytes, ...], str]:
    if plan.photos:
        pictures = _photos(plan, services)
        embeddings, source = _embedded(pictures, services), f"embeddings of {pictures.source}"
    else:
        embeddings = _random(plan, services.index)
        source = f"{plan.distinct} random unit vectors"
    requests = tuple(
        search_request(wire.pack(embeddings.model, np.stack(rows)), plan.options)
        for rows in batches(list(embeddings.vectors), plan.batch)
    )
    return requests, source


def _photos(plan: Plan, services: Services) -> Photos:
    if plan.photos is None:
        return photos.drawn(plan.distinct, plan.size, plan.seed)
    return photos.found(plan.photos, plan.distinct, plan.seed, services.model.limits.max_image_bytes)


def _embedded(pictures: Photos, services: Services) -> Embeddings:
    """Return the embeddings of the photos, asked for a few at a time: the embedder may be busy, or slow."""
    accepted = services.model.limits
    most = min(_EMBED_PHOTOS, accepted.max_images)
    packer = Packer(Limits(most, accepted.max_request_bytes, accepted.max_image_bytes))
    entries = (read_entry(number, content, packer.limits) for number, content in enumerate(pictures.contents))
    batches = [*chain.from_iterable(map(packer.add, entries)), *packer.rest()]
    parts = [services.embed([entry.image for entry in batch if entry.image]) for batch in batches]
    return Embeddings(parts[0].model, np.concatenate([part.vectors for part in parts]))


def _random(plan: Plan, index: IndexInfo) -> Embeddings:
    """Return unit vectors in all directions. No photo is like that: an index may have more to do, or less."""
    vectors = np.random.default_rng(plan.seed).standard_normal((plan.distinct, index.dimension), np.float32)
    return Embeddings(index.model, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def batches(things: Sequence[T], size: int) -> Iterator[list[T]]:
    """Yield all things in turn, `size` at a time; the last batch is filled up with the first things."""
    for start in range(0, len(things), size):
        yield [things[number % len(things)] for number in range(start, start + size)]


def _check_queries(plan: Plan, index: IndexInfo) -> None:
    _check(plan.batch, index.limits.max_queries, "the search service", "queries")
    neighbours = plan.batch * (plan.options.k or index.k)
    _check(neighbours, index.limits.max_neighbours, "the search service", "neighbours (--batch times k)")


def _check(wanted: int, most: int, service: str, things: str) -> None:
    if wanted > most:
        raise CannotRunError(f"{service} accepts {most} {things} in a call, the plan has {wanted}")
