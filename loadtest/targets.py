"""The call of each target: bytes out, bytes in, and the figures that the reply holds."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vmmr import _requests
from vmmr._types import SearchOptions
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2

from loadtest import replies
from loadtest.plan import Plan, Target
from loadtest.replies import SearchReply

_METHODS = {
    "embed": "/vmmr.embedder.v1.EmbedderService/Embed",
    "search": "/vmmr.search.v1.SearchService/Search",
    "classify": "/vmmr.search.v1.SearchService/Classify",
}
EMBED, CLASSIFY = "embed", "classify"
"""The stages that are the two whole calls of `identify`."""
CALLS = (EMBED, CLASSIFY)
NETWORK = "elsewhere"
"""The stage for the rest of a call's time: network, gRPC and event loops at both ends."""


@dataclass(frozen=True)
class Answer:
    sent: int
    """Bytes."""
    received: int
    stages: Mapping[str, float]
    """Milliseconds, as the services measured them."""


class Ask(Protocol):
    """Makes one call. Raises grpc.aio.AioRpcError, or MalformedReplyError or DecodeError if the reply is malformed."""

    async def __call__(self, request: bytes, deadline: float, /) -> Answer:
        """Make the call with these bytes. `deadline` is a time of `time.monotonic()`."""


def ask(target: Target, channels: Mapping[str, Any], plan: Plan, metadata: Any) -> Ask:
    """Return the target's call, on one channel to each service."""
    makers: dict[Target, Callable[[], Ask]] = {
        "embed": lambda: _embed(_method(channels["embedder"], "embed", metadata), plan.batch),
        "search": lambda: _search(
            _method(channels["search"], "search", metadata), search_pb2.SearchResponse, plan.batch
        ),
        "classify": lambda: _search(
            _method(channels["search"], "classify", metadata), search_pb2.ClassifyResponse, plan.batch
        ),
        "identify": lambda: _identify(channels, plan, metadata),
    }
    return makers[target]()


def _method(channel: Any, name: str, metadata: Any) -> Any:
    """Return a method that takes and returns bytes: without serializers, gRPC passes them on as they are."""
    call = channel.unary_unary(_METHODS[name])
    return lambda request, deadline: call(request, timeout=deadline - time.monotonic(), metadata=metadata)


def _embed(method: Any, batch: int) -> Ask:
    async def embed(request: bytes, deadline: float) -> Answer:
        reply = await method(request, deadline)
        return Answer(len(request), len(reply), replies.embedded(reply, batch).times)

    return embed


def _search(method: Any, kind: SearchReply, batch: int) -> Ask:
    async def search(request: bytes, deadline: float) -> Answer:
        reply = await method(request, deadline)
        return Answer(len(request), len(reply), replies.answered(reply, kind, batch))

    return search


def _identify(channels: Mapping[str, Any], plan: Plan, metadata: Any) -> Ask:
    """Make the call of `identify`: Embed, then Classify with the embeddings of its reply."""
    embed = _method(channels["embedder"], "embed", metadata)
    classify = _method(channels["search"], "classify", metadata)
    options = _requests.options(plan.options)

    async def identify(request: bytes, deadline: float) -> Answer:
        began = time.monotonic()
        reply = await embed(request, deadline)
        embedded = replies.embedded(reply, plan.batch)
        between = time.monotonic()
        question = _search_request(embedded.embeddings, options, embedded.cuts)
        answer = await classify(question, deadline)
        searching = replies.answered(answer, search_pb2.ClassifyResponse, embedded.rows)
        stages = {f"e.{name}": ms for name, ms in embedded.times.items()} | {
            f"s.{name}": ms for name, ms in searching.items()
        }
        calls = {EMBED: 1e3 * (between - began), CLASSIFY: 1e3 * (time.monotonic() - between)}
        return Answer(len(request) + len(question), len(reply) + len(answer), stages | calls)

    return identify


def search_request(embeddings: embedding_pb2.Embeddings, options: SearchOptions) -> bytes:
    """Return a request for Search or Classify, which number these fields alike."""
    return _search_request(embeddings, _requests.options(options))


def _search_request(
    embeddings: embedding_pb2.Embeddings, options: search_pb2.SearchOptions, cuts: Sequence[embedding_pb2.Cut] = ()
) -> bytes:
    return search_pb2.ClassifyRequest(queries=embeddings, options=options, cuts=cuts).SerializeToString()
