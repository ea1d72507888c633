"""`vmmr-search serve --workers`: real processes on one port, over one index."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from vmmr import wire
from vmmr.search.v1 import search_pb2

from search_svc.building.build import IndexSpec

D = 16
TIMEOUT_S = 30


def unit(rows, seed):
    vectors = np.random.default_rng(seed).standard_normal((rows, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def version(build_index, tmp_path_factory):
    return build_index(unit(300, seed=0), directory=tmp_path_factory.mktemp("index"), spec=IndexSpec(shards=2, k=5))


def index_of(version):
    return version.path.parents[1]


def found(stub, version):
    """Item ids and scores, for three queries."""
    packed = wire.pack(version.manifest.model, unit(3, seed=1))
    request = search_pb2.SearchRequest(queries=packed, options=search_pb2.SearchOptions(k=5))
    reply = stub.Search(request, timeout=TIMEOUT_S, wait_for_ready=True)
    return reply.results


def test_every_worker_answers_as_one_server_does_before_and_after_one_was_killed(version, spawn, run, dial):
    expected = found(dial(spawn("--index", index_of(version)).ready()["port"]), version)
    program = Path(sys.executable).with_name("vmmr-search")
    server = run(program, "serve", "--port", "0", "--index", index_of(version), "--workers", "2")
    port = server.ready()["port"]

    def ask_over_many_connections():
        assert all(found(dial(port), version) == expected for _ in range(16))
        server.nth("call", 16)
        return {call["worker"] for call in server.logged("call")}

    assert ask_over_many_connections() == {0, 1}
    os.kill(server.logged("worker ready")[0]["pid"], signal.SIGKILL)
    server.first("worker ended")
    ask_over_many_connections()
    server.popen.send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_a_damaged_index_is_told_once_as_without_workers(build_index, tmp_path, spawn):
    version = build_index(unit(50, seed=0), directory=tmp_path, spec=IndexSpec(k=5))
    with version.shard_paths[0].open("r+b") as shard:
        shard.seek(200)
        shard.write(b"damage")
    flags = ("--index", index_of(version))
    alone, together = spawn(*flags), spawn(*flags, "--workers", "3")
    assert alone.fatal() == together.fatal()
    assert version.shard_paths[0].name in alone.fatal()
