"""bench/embedder/overload.py: what counts as goodput, and from when on recovery is."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from bench.embedder import overload


class Held(embedder_pb2_grpc.EmbedderServiceServicer):
    """Answers when so many calls have come, all of them then."""

    def __init__(self, calls):
        self._calls = calls
        self._held = []

    def Embed(self, request, context):  # noqa: N802 (the protocol's name)
        go = threading.Event()
        context.add_callback(go.set)  # its caller has given up
        self._held.append(go)
        if len(self._held) == self._calls:
            for each in self._held:
                each.set()
        assert go.wait(60)
        return embedder_pb2.EmbedResponse()


@pytest.fixture
def serve():
    """Starts a server that waits for so many calls, and the generator for it."""
    servers = []

    def start(calls):
        servers.append(grpc.server(ThreadPoolExecutor(calls)))
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(Held(calls), servers[-1])
        port = servers[-1].add_insecure_port("127.0.0.1:0")
        servers[-1].start()
        overload.open_generator(f"127.0.0.1:{port}", [b"photo"])

    yield start
    for server in servers:
        server.stop(None).wait()


def test_the_load_after_the_overload_does_not_wait_for_what_that_left_behind(serve):
    serve(12)
    over, after = overload.offer([(20.0, 0.5), (4.0, 0.5)], 60)
    assert [call.intended for call in over] == [number / 20 for number in range(10)]
    assert [call.intended for call in after] == [0, 0.25]
    assert [call.code for call in over + after] == ["OK"] * 12, "none was answered before all were under way"
    assert all(call.late < call.took for call in over + after)


def test_a_call_that_is_given_up_is_told_by_its_code(serve):
    serve(3)
    [over] = overload.offer([(4.0, 0.5)], 0.3)
    assert [call.code for call in over] == ["DEADLINE_EXCEEDED"] * 2


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
