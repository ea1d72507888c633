"""Check a reply, and read from it what a load test measures."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from vmmr.embedder.v1 import embedder_pb2
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2

SearchReply: TypeAlias = type[search_pb2.SearchResponse] | type[search_pb2.ClassifyResponse]


class MalformedReplyError(ValueError):
    """A reply that does not answer as many questions as were asked."""


@dataclass(frozen=True)
class Embedded:
    """What a reply of the embedder says."""

    embeddings: embedding_pb2.Embeddings
    cuts: list[embedding_pb2.Cut]
    """What each embedding is of; empty if the embedder did not say."""
    rows: int
    times: dict[str, float]
    """In ms."""


def embedded(reply: bytes, photos: int) -> Embedded:
    """Read a reply about so many photos. Raise MalformedReplyError or DecodeError."""
    message = embedder_pb2.EmbedResponse.FromString(reply)
    embeddings, parts = message.embeddings, message.parts
    rows = len(parts) or photos
    if rows < photos or len(embeddings.data) != 4 * embeddings.dimension * rows:
        raise MalformedReplyError(
            f"the embedder's reply does not have {rows} embeddings of {embeddings.dimension} floats, of {photos} photos"
        )
    return Embedded(embeddings, [part.cut for part in parts], rows, _times(message.times))


def answered(reply: bytes, kind: SearchReply, queries: int) -> dict[str, float]:
    """Return the times of a search or a classification in ms. Raise MalformedReplyError or DecodeError."""
    message = kind.FromString(reply)
    if len(message.results) != queries:
        raise MalformedReplyError(f"the search service gave {len(message.results)} answers to {queries} questions")
    return _times(message.times)


def _times(times: Any) -> dict[str, float]:
    return {field.name.removesuffix("_ms"): getattr(times, field.name) for field in times.DESCRIPTOR.fields}
