"""A real front end whose cluster goes: it says so, comes back with it, and ends in order before Ray would end it."""

import grpc
import numpy as np
import pytest
from vmmr import wire
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from search_svc.__main__ import CLUSTER
from svckit.probe import health

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore::Warning:ray")]

GALLERY = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


@pytest.fixture
def head(monkeypatch, tmp_path):
    """A node with a GCS that finds again what it knew, and waits for it longer than any front end."""
    pytest.importorskip("ray", reason="NO RAY HERE: a cluster that is lost was not tested")
    from demo.ray_nodes import ray_nodes

    monkeypatch.setenv("RAY_gcs_storage", "rocksdb")
    monkeypatch.setenv("RAY_gcs_storage_path", str(tmp_path / "gcs"))
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
    with ray_nodes(1) as cluster:
        yield cluster


def test_a_front_end_tells_that_its_cluster_is_lost_and_back_and_ends_in_order_if_it_stays_away(
    head, build_index, tmp_path, run, until
):
    cluster = head.address  # a head without its GCS has forgotten it
    version = build_index(GALLERY, directory=tmp_path / "index")
    flags = ("--index", tmp_path / "index", "--engine=ray", "--ray-address", cluster, "--port=0", "--read-only")
    # Ray would end the process after 40 s, so it ends by itself after 30.
    server = run("-m", "search_svc", "serve", *flags, env={"RAY_gcs_rpc_server_reconnect_timeout_s": "40"})
    until(lambda: server.logged("ready") or server.popen.poll() is not None)
    address = f"127.0.0.1:{server.ready()['port']}"
    started = server.first("connected to a Ray cluster")
    assert {key: started[key] for key in ("engine", "cluster", "replicas")} == {
        "engine": "ray",
        "cluster": cluster,
        "replicas": 1,
    }
    with grpc.insecure_channel(address) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        queries = wire.pack(version.manifest.model, GALLERY[:1])

        def answers():
            return len(stub.Search(search_pb2.SearchRequest(queries=queries), timeout=20).results) == 1

        def problem():
            return stub.GetIndex(search_pb2.GetIndexRequest(), timeout=20).index.problem

        assert answers()
        until(lambda: health(address, service=CLUSTER) == "SERVING")
        head.head_node.kill_gcs_server()
        (lost,) = until(lambda: server.logged("the Ray cluster is lost"))
        assert (lost["cluster"], lost["ends_in_s"], lost["level"]) == (cluster, 30, "ERROR")
        until(lambda: health(address, service=CLUSTER) == "NOT_SERVING")
        assert health(address) == "SERVING"
        assert problem() == f"the Ray cluster at {cluster} is lost: Connection refused"
        assert answers(), "the replicas are where they were"
        head.head_node.start_gcs_server()
        until(lambda: server.logged("the Ray cluster is back"))
        until(lambda: health(address, service=CLUSTER) == "SERVING")
        assert answers()
        assert problem() == ""
        head.head_node.kill_gcs_server()
        until(lambda: server.popen.poll() is not None)
        assert server.wait() == 1
    said = [line["message"] for line in server.logged("draining") + server.logged("stopped")]
    assert said == ["draining", "stopped"]
    (end,) = server.logged("ended by an error")
    assert end["error"].startswith(f"the Ray cluster at {cluster} was lost for 30 s (Connection refused)")
    assert not [line for line in server.lines if "will terminate" in line]


WARMS_UP_FOR_EVER = """
import asyncio
from search_svc import __main__ as search

search._warm_up = lambda *_: asyncio.Event().wait()
search.main()
"""


def test_a_front_end_whose_cluster_goes_while_it_warms_up_ends_with_the_reason_too(
    head, build_index, tmp_path, run, until
):
    cluster = head.address
    build_index(GALLERY, directory=tmp_path / "index")
    flags = ("--index", tmp_path / "index", "--engine=ray", "--ray-address", cluster, "--port=0", "--read-only")
    server = run("-c", WARMS_UP_FOR_EVER, "serve", *flags, env={"RAY_gcs_rpc_server_reconnect_timeout_s": "40"})
    until(lambda: server.logged("listening") or server.popen.poll() is not None)
    head.head_node.kill_gcs_server()
    until(lambda: server.popen.poll() is not None)
    assert server.fatal().startswith(f"the Ray cluster at {cluster} was lost for 30 s (Connection refused)")
