"""Check a reply, and read from it what a load test measures."""

from typing import Any, TypeAlias

from vmmr.embedder.v1 import embedder_pb2
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2

SearchReply: TypeAlias = type[search_pb2.SearchResponse] | type[search_pb2.ClassifyResponse]


class MalformedReplyError(ValueError):
    """A reply that does not answer as many questions as were asked."""


def embedded(reply: bytes, photos: int) -> tuple[embedding_pb2.Embeddings, dict[str, float]]:
    """Return the embeddings and the embedder's times in ms. Raise MalformedReplyError or DecodeError."""
    message = embedder_pb2.EmbedResponse.FromString(reply)
    embeddings = message.embeddings
    if len(embeddings.data) != 4 * embeddings.dimension * photos:
        raise MalformedReplyError(
            f"the embedder's reply does not have {photos} embeddings of {embeddings.dimension} floats"
        )
    return embeddings, _times(message.times)


def answered(reply: bytes, kind: SearchReply, queries: int) -> dict[str, float]:
    """Return the times of a search or a classification in ms. Raise MalformedReplyError or DecodeError."""
    message = kind.FromString(reply)
    if len(message.results) != queries:
        raise MalformedReplyError(f"the search service gave {len(message.results)} answers to {queries} questions")
    return _times(message.times)


def _times(times: Any) -> dict[str, float]:
    return {field.name.removesuffix("_ms"): getattr(times, field.name) for field in times.DESCRIPTOR.fields}
