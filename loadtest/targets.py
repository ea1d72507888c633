"""What one call of each target is: bytes sent and received, nothing parsed that is not measured."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vmmr._requests import field_start, options
from vmmr.search.v1 import search_pb2

from loadtest import replies
from loadtest.plan import Plan, Target

_METHODS = {
    "embed": "/vmmr.embedder.v1.EmbedderService/Embed",
    "search": "/vmmr.search.v1.SearchService/Search",
    "classify": "/vmmr.search.v1.SearchService/Classify",
}
EMBED, CLASSIFY = "embed", "classify"
"""Stages that are whole calls, of which `identify` makes two."""
CALLS = (EMBED, CLASSIFY)
NETWORK = "elsewhere"
"""The stage that is what remains: network, gRPC and event loops at both ends."""


@dataclass(frozen=True)
class Answer:
    sent: int
    """Bytes."""
    received: int
    stages: Mapping[str, float]
    """Milliseconds, as the services measured them."""


class Ask(Protocol):
    """One call. Raises grpc.aio.AioRpcError, or MalformedReplyError or DecodeError of a reply that is none."""

    async def __call__(self, request: bytes, deadline: float, /) -> Answer:
        """`deadline`, as `time.monotonic()` counts."""


def ask(target: Target, channels: Mapping[str, Any], plan: Plan, metadata: Any) -> Ask:
    """The target's call on one channel to each service."""
    makers: dict[Target, Callable[[], Ask]] = {
        "embed": lambda: _embed(_method(channels["embedder"], "embed", metadata), plan.batch),
        "search": lambda: _search(_method(channels["search"], "search", metadata), plan.batch),
        "classify": lambda: _search(_method(channels["search"], "classify", metadata), plan.batch),
        "identify": lambda: _identify(channels, plan, metadata),
    }
    return makers[target]()


def _method(channel: Any, name: str, metadata: Any) -> Any:
    """Bytes to bytes: without serializers, gRPC takes and gives them as they are."""
    call = channel.unary_unary(_METHODS[name])
    return lambda request, deadline: call(request, timeout=deadline - time.monotonic(), metadata=metadata)


def _embed(method: Any, batch: int) -> Ask:
    async def embed(request: bytes, deadline: float) -> Answer:
        reply = await method(request, deadline)
        _, times = replies.embedded(reply, batch)
        return Answer(len(request), len(reply), times)

    return embed


def _search(method: Any, batch: int) -> Ask:
    async def search(request: bytes, deadline: float) -> Answer:
        reply = await method(request, deadline)
        return Answer(len(request), len(reply), replies.answered(reply, batch))

    return search


def _identify(channels: Mapping[str, Any], plan: Plan, metadata: Any) -> Ask:
    """Embed, then Classify: what an embedder answers is put into the next request as it came."""
    embed = _method(channels["embedder"], "embed", metadata)
    classify = _method(channels["search"], "classify", metadata)
    options = without_queries(plan)

    async def identify(request: bytes, deadline: float) -> Answer:
        began = time.monotonic()
        embedded = await embed(request, deadline)
        embeddings, embedding = replies.embedded(embedded, plan.batch)
        between = time.monotonic()
        question = with_queries(embeddings, options)
        answer = await classify(question, deadline)
        searching = replies.answered(answer, plan.batch)
        stages = {f"e.{name}": ms for name, ms in embedding.items()} | {
            f"s.{name}": ms for name, ms in searching.items()
        }
        calls = {EMBED: 1e3 * (between - began), CLASSIFY: 1e3 * (time.monotonic() - between)}
        return Answer(len(request) + len(question), len(embedded) + len(answer), stages | calls)

    return identify


def without_queries(plan: Plan) -> bytes:
    """All but the queries of a request: Search and Classify number their fields alike."""
    return search_pb2.ClassifyRequest(options=options(plan.options)).SerializeToString()


def with_queries(embeddings: bytes, rest: bytes) -> bytes:
    """A request: its first field is the message that the embedder answers with."""
    return field_start(1, len(embeddings)) + embeddings + rest
