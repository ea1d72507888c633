"""bench/embedder/overload.py: what counts as goodput, and from when on recovery is."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from bench.embedder import overload


class Slow(embedder_pb2_grpc.EmbedderServiceServicer):
    """Takes a second a call, two at a time."""

    def Embed(self, request, context):  # noqa: N802 (the protocol's name)
        time.sleep(1)
        return embedder_pb2.EmbedResponse()


@pytest.fixture
def slow():
    server = grpc.server(ThreadPoolExecutor(2))
    embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(Slow(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    overload.open_generator(f"127.0.0.1:{port}", [b"photo"])
    yield
    server.stop(None).wait()


def test_the_load_after_the_overload_does_not_wait_for_what_that_left_behind(slow):
    over, after = overload.offer([(20.0, 0.5), (4.0, 0.5)], 1.5)
    assert (len(over), len(after)) == (10, 2)
    assert {call.code for call in over} == {"OK", "DEADLINE_EXCEEDED"}
    assert [call.code for call in after] == ["DEADLINE_EXCEEDED"] * 2, "the queue was still full"
    assert max(call.late for call in after) < 0.5


def test_what_is_answered_after_the_overload_is_no_goodput_of_it():
    calls = [overload.Call(intended, 0.0, 1.0, "OK") for intended in (0.0, 5.0, 9.5)]
    calls.append(overload.Call(3.0, 0.0, 0.004, "RESOURCE_EXHAUSTED"))
    found = overload.overload(calls, peak=0.5, seconds=10.0)
    assert (found["goodput"], found["goodput_of_peak"]) == (0.2, 0.4)
    assert (found["refused_p99_ms"], found["codes"]) == (4.0, {"OK": 3, "RESOURCE_EXHAUSTED": 1})


def test_recovery_ends_with_the_last_call_that_was_refused_or_late():
    fine = [overload.Call(at / 10, 0.0, 0.1, "OK") for at in range(20)]
    assert overload.recovered(fine, usual=0.1) == 0.0
    late = [*fine[:5], overload.Call(0.5, 0.0, 0.9, "OK"), *fine[6:]]
    assert overload.recovered(late, usual=0.1) == 0.5
    assert overload.recovered([*fine, overload.Call(2.0, 0.0, 0.1, "RESOURCE_EXHAUSTED")], usual=0.1) is None
