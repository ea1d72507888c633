"""`vmmr-search serve` as a real process with three shards, one of which does not answer while a test holds its lock."""

import fcntl
import signal
import threading
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vmmr import wire
from vmmr.search.v1 import search_pb2

from search_svc.building.build import IndexSpec
from search_svc.engine.shard_thread import MOST_ABANDONED

D, STUCK = 32, 1
TIMEOUT_S = 60
SOON_MS = 500
"""Within the minute after which a shard that is stuck is late; the others never are."""
LATE = (grpc.StatusCode.DEADLINE_EXCEEDED, "SHARD_TIMEOUT")
PROGRAM = Path(__file__).with_name("stuck_server.py")


def unit(rows, seed=1):
    vectors = np.random.default_rng(seed).standard_normal((rows, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Served:
    """The server, a client, and the lock that one shard waits for."""

    def __init__(self, version, process, stub, lock):
        self.version, self.process, self.lock = version, process, lock
        self.ports = process.ready()
        self.stub = stub(self.ports["port"])

    def hold(self):
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def let_go(self):
        fcntl.flock(self.lock, fcntl.LOCK_UN)

    def request(self, queries, kind=search_pb2.SearchRequest, **options):
        packed = wire.pack(self.version.manifest.model, queries)
        return kind(queries=packed, options=search_pb2.SearchOptions(**options))

    def search(self, queries, *, timeout=TIMEOUT_S, **options):
        return self.stub.Search(self.request(queries, **options), timeout=timeout)

    def refusal(self, queries, **options):
        with pytest.raises(grpc.RpcError) as caught:
            self.search(queries, **options)
        info = error_details_pb2.ErrorInfo()
        for detail in rpc_status.from_call(caught.value).details:
            detail.Unpack(info)
        return (caught.value.code(), info.reason), dict(info.metadata)

    def nearest(self, queries, shards):
        """Return the item ids of the five nearest photos of these shards, by numpy."""
        rows = np.sort(np.concatenate([self.version.manifest.shards[shard].rows for shard in shards]))
        scores = queries @ self.version.embeddings[rows].astype(np.float32).T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        return [[self.version.items.item_id(row) for row in each] for each in rows[order].tolist()]

    def check(self, response, queries, shards):
        """Assert that the answer is that of these shards, and says so."""
        assert [[each.item_id for each in found.neighbours] for found in response.results] == self.nearest(
            queries, shards
        )
        provenance = response.provenance
        assert (provenance.shards_answered, provenance.shards_total) == (len(shards), 3)

    def metric(self, name):
        address = f"http://127.0.0.1:{self.ports['metrics_port']}/metrics"
        lines = urllib.request.urlopen(address, timeout=TIMEOUT_S).read().decode().splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
        return float(value)


@pytest.fixture(scope="module")
def version(build_index, tmp_path_factory):
    return build_index(unit(300, seed=0), directory=tmp_path_factory.mktemp("index"), spec=IndexSpec(shards=3, k=5))


@pytest.fixture
def serve(run, dial, tmp_path):
    """Start the server. The lock is free once it is ready, and when the test ends."""
    path = tmp_path / "lock"
    with path.open("w") as lock:

        def serve(version, *flags, how="waiting"):
            first_row = version.manifest.shards[STUCK].start
            flags = ("--index", version.path.parents[1], "--port", 0, "--metrics-port", 0, "--drain-pause-s", 0, *flags)
            return Served(version, run(PROGRAM, first_row, path, how, "serve", *flags), dial, lock)

        yield serve


def test_a_late_shard_fails_the_call_or_is_left_out_as_asked_and_the_next_query_is_unaffected(serve, version):
    served, queries = serve(version), unit(4)
    served.check(served.search(queries), queries, [0, 1, 2])
    served.hold()
    assert served.refusal(queries, shard_timeout_ms=SOON_MS) == (LATE, {"shards": "shard-001.faiss"})
    served.check(served.search(queries, shard_timeout_ms=SOON_MS, allow_partial=True), queries, [0, 2])
    # Both are stuck still, and an exact search of the same shard is not held up by them.
    assert served.metric("vmmr_abandoned_searches") == 2
    served.check(served.search(queries, exact=True), queries, [0, 1, 2])
    assert served.metric("vmmr_partial_replies_total") == 1
    served.let_go()
    served.check(served.search(queries), queries, [0, 1, 2])
    first, second = (served.process.nth("shard abandoned", number) for number in (1, 2))
    assert (first["shard"], first["abandoned"], second["abandoned"]) == ("shard-001.faiss", 1, 2)


def test_a_partial_classification_is_by_the_photos_of_the_shards_that_answered(serve, version):
    served, queries = serve(version), unit(3)
    served.hold()
    for fuse in (False, True):
        request = served.request(queries, search_pb2.ClassifyRequest, shard_timeout_ms=SOON_MS, allow_partial=True)
        request.fuse = fuse
        response = served.stub.Classify(request, timeout=TIMEOUT_S)
        found = [{each.item_id for each in result.neighbours} for result in response.results]
        expected = [set(each) for each in served.nearest(queries, [0, 2])]
        assert found == ([set.union(*expected)] if fuse else expected)
        assert response.provenance.shards_answered == 2


def test_a_partial_answer_comes_before_the_deadline_of_its_call(serve, version):
    served, queries = serve(version, "--shard-timeout-s", 600), unit(1)
    served.hold()
    served.check(served.search(queries, timeout=TIMEOUT_S, allow_partial=True), queries, [0, 2])


def test_a_shard_that_stays_stuck_costs_a_few_threads_then_nothing_and_recovers(serve, version):
    served, queries = serve(version, "--shard-timeout-s", 600), unit(2)
    served.hold()
    for _ in range(MOST_ABANDONED):
        assert served.refusal(queries, shard_timeout_ms=SOON_MS)[0] == LATE
    # At once: they could wait for ten minutes.
    for _ in range(3):
        assert served.refusal(queries)[0] == LATE
        served.check(served.search(queries, allow_partial=True), queries, [0, 2])
    assert served.metric("vmmr_abandoned_searches") == MOST_ABANDONED
    served.let_go()
    served.process.first("abandoned search ended")
    assert [line["shard"] for line in served.process.logged("shard abandoned")] == MOST_ABANDONED * ["shard-001.faiss"]
    served.check(served.search(queries), queries, [0, 1, 2])


def test_stopping_while_shards_are_stuck_ends_in_order(serve, build_index, tmp_path):
    """One search was abandoned, one is waited for, and both are in faiss. When the drain is over, the process ends at once."""
    # With this kind of index, it crashes if the interpreter ends beside them.
    version = build_index(unit(300, seed=0), spec=IndexSpec("IVF4,SQ8", shards=3, k=5), directory=tmp_path / "index")
    served = serve(version, "--shard-timeout-s", 600, "--drain-s", 0.5, how="searching")
    served.hold()
    assert served.refusal(unit(1), shard_timeout_ms=SOON_MS)[0] == LATE
    refusals = []
    waiting = threading.Thread(target=lambda: refusals.append(served.refusal(unit(1), timeout=600)[0]))
    waiting.start()
    served.process.first("held 2")
    served.process.popen.send_signal(signal.SIGTERM)
    assert served.process.wait() == 0, served.process.said()
    waiting.join(TIMEOUT_S)
    assert refusals == [(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")]
    assert served.process.logged("stopped")
    assert served.process.said() == []
