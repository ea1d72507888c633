"""Replies and requests of a load test."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from vmmr import wire
from vmmr._types import Filter, SearchOptions
from vmmr.embedder.v1 import embedder_pb2
from vmmr.search.v1 import search_pb2

from loadtest.replies import MalformedReplyError, answered, embedded
from loadtest.targets import search_request

MS = st.floats(0, 1000, width=32)


@given(st.integers(1, 70), st.integers(1, 600), MS, MS, MS)
def test_embeddings_and_times_of_the_embedder(rows, dimension, decode, queue, infer):
    times = embedder_pb2.EmbedTimes(decode_ms=decode, queue_ms=queue, infer_ms=infer)
    embeddings = wire.pack("m" * 64, np.ones((rows, dimension), np.float32))
    reply = embedder_pb2.EmbedResponse(embeddings=embeddings, times=times).SerializeToString()
    found = embedded(reply, rows)
    assert (found.embeddings, found.rows, found.cuts) == (embeddings, rows, [])
    assert found.times == {"decode": decode, "queue": queue, "infer": infer, "detect": 0}
    with pytest.raises(MalformedReplyError, match=f"does not have {rows + 1} embeddings"):
        embedded(reply, rows + 1)


def test_a_photo_may_have_several_embeddings_and_none_has_fewer_than_one():
    def reply(rows, parts):
        embeddings = wire.pack("m" * 64, np.ones((rows, 3), np.float32))
        parts = [embedder_pb2.EmbeddedPart(image=n) for n in parts]
        return embedder_pb2.EmbedResponse(embeddings=embeddings, parts=parts).SerializeToString()

    found = embedded(reply(3, [0, 0, 1]), 2)
    assert (found.rows, len(found.cuts)) == (3, 3)
    for rows, parts in ((3, [0, 1]), (1, [0])):
        with pytest.raises(MalformedReplyError, match="floats, of 2 photos"):
            embedded(reply(rows, parts), 2)


@given(st.integers(1, 70), MS, MS)
def test_answers_are_counted_and_times_read_of_the_search_service(queries, queue, search):
    times = search_pb2.SearchTimes(queue_ms=queue, search_ms=search)
    results = [search_pb2.Neighbours(neighbours=[search_pb2.Neighbour(uri="x" * n)]) for n in range(queries)]
    provenance = search_pb2.Provenance(model="m")
    reply = search_pb2.SearchResponse(results=results, provenance=provenance, times=times).SerializeToString()
    assert answered(reply, search_pb2.SearchResponse, queries) == {"queue": queue, "search": search, "vote": 0}
    with pytest.raises(MalformedReplyError, match=f"{queries} answers to {queries - 1} questions"):
        answered(reply, search_pb2.SearchResponse, queries - 1)


@given(st.binary(max_size=60))
def test_what_is_no_reply_is_told_and_never_an_answer_to_a_question(data):
    try:
        times = answered(data, search_pb2.ClassifyResponse, 0)
    except (MalformedReplyError, DecodeError):
        return
    assert set(times) == {"queue", "search", "vote"}


@given(st.integers(1, 70), st.integers(1, 600))
def test_one_request_serves_search_and_classify(rows, dimension):
    options = SearchOptions(k=7, nprobe=3, filter=Filter(makes=("honda",)))
    embeddings = wire.pack("m" * 64, np.ones((rows, dimension), np.float32))
    data = search_request(embeddings, options)
    for kind in (search_pb2.ClassifyRequest, search_pb2.SearchRequest):
        request = kind.FromString(data)
        assert request.queries == embeddings
        assert (request.options.k, request.options.nprobe, list(request.options.filter.makes)) == (7, 3, ["honda"])
