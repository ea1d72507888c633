"""What a load test wants to know of a reply, without parsing the rest of it."""

from collections.abc import Iterator
from typing import Any

from vmmr.embedder.v1 import embedder_pb2
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2

_LENGTH_DELIMITED = 2
_RESULTS = 1
_TIMES = {"embedder": 2, "search": 3}


class MalformedReplyError(ValueError):
    """Bytes that are not the reply of our contract, or a reply to another number of questions."""


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each top-level field, all of which are messages in our replies."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        if tag & 7 != _LENGTH_DELIMITED:
            raise MalformedReplyError(f"field {tag >> 3} is no message")
        size, at = _varint(data, at)
        if at + size > end:
            raise MalformedReplyError("the reply is cut short")
        yield tag >> 3, data[at : at + size]
        at += size


def embedded(reply: bytes, photos: int) -> tuple[bytes, dict[str, float]]:
    """The embeddings, as the bytes of their message, and the times in ms. Raises MalformedReplyError or DecodeError."""
    parts = dict(fields(reply))
    content = parts.get(_RESULTS, b"")
    message = embedding_pb2.Embeddings.FromString(content)
    if len(message.data) != 4 * message.dimension * photos:
        raise MalformedReplyError(
            f"the embedder's reply does not have {photos} embeddings of {message.dimension} floats"
        )
    return content, _times(embedder_pb2.EmbedTimes, parts.get(_TIMES["embedder"], b""))


def answered(reply: bytes, queries: int) -> dict[str, float]:
    """The times of a search or a classification, in ms. Raises MalformedReplyError or DecodeError."""
    results, times = 0, b""
    for number, content in fields(reply):
        results += number == _RESULTS
        times = content if number == _TIMES["search"] else times
    if results != queries:
        raise MalformedReplyError(f"the search service gave {results} answers to {queries} questions")
    return _times(search_pb2.SearchTimes, times)


def _times(kind: Any, content: bytes) -> dict[str, float]:
    times = kind.FromString(content)
    return {field.name.removesuffix("_ms"): getattr(times, field.name) for field in kind.DESCRIPTOR.fields}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where what follows it is."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise MalformedReplyError("the reply is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
