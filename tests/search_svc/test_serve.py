"""`vmmr-search serve` as a real process."""

import signal
import threading
import urllib.request

import faiss
import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from vmmr import wire
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2

from search_svc.building.build import IndexSpec

D = 32
TIMEOUT_S = 30
INVALID, PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
Options = search_pb2.SearchOptions
Filter = search_pb2.Filter


def unit(rows, seed=1, dimension=D):
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


GALLERY = unit(500, seed=0)


@pytest.fixture(scope="module")
def version(build_index, tmp_path_factory):
    return build_index(GALLERY, directory=tmp_path_factory.mktemp("index"), spec=IndexSpec(shards=3, k=10))


@pytest.fixture(scope="module")
def stub(version, module_spawn, module_dial):
    return module_dial(module_spawn("--index", version.path.parents[1], "--max-queries", "70").ready()["port"])


def request(version, queries, model=None, **options):
    packed = wire.pack(model or version.manifest.model, queries)
    return search_pb2.SearchRequest(queries=packed, options=Options(**options))


def details(error):
    """ErrorInfo, and (field, reason) of each violation."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return info, [(violation.field, violation.reason) for violation in bad.field_violations]


class TestBadInput:
    """Each is refused with its status and detail, and the next good request is answered."""

    @pytest.mark.parametrize(
        ("queries", "options", "violation"),
        [
            (unit(0), {}, ("queries", "INVALID_QUERY_COUNT")),
            (unit(71), {}, ("queries", "INVALID_QUERY_COUNT")),
            (unit(1, dimension=D - 1), {}, ("queries.dimension", "DIMENSION_MISMATCH")),
            (np.full((1, D), np.nan), {}, ("queries.data", "MALFORMED_EMBEDDINGS")),
            (unit(1), {"k": 0}, ("options.k", "INVALID_K")),
            (unit(1), {"k": 1001}, ("options.k", "INVALID_K")),
            (unit(1), {"filter": Filter(makes=["lada"])}, ("options.filter.makes", "UNKNOWN_FILTER_VALUE")),
            (unit(1), {"filter": Filter(min_year=2, max_year=1)}, ("options.filter.min_year", "INVALID_FILTER")),
            (unit(1), {"nprobe": 1}, ("options.nprobe", "INVALID_SEARCH_PARAMETER")),
        ],
        ids=[
            "no queries",
            "too many queries",
            "wrong dimension",
            "NaN",
            "k = 0",
            "k too large",
            "unknown filter value",
            "a range of no years",
            "a parameter of another kind of index",
        ],
    )
    def test_what_cannot_be_searched(self, stub, version, queries, options, violation):
        bad = request(version, queries, **options)
        self.check(stub, version, bad, code=INVALID, reason=violation[1], violations=[violation])

    def test_a_wrong_fingerprint(self, stub, version):
        bad = request(version, unit(1), model="f" * 64)
        info = self.check(stub, version, bad, code=PRECONDITION, reason="MODEL_MISMATCH", violations=[])
        assert info.metadata == {"expected": version.manifest.model, "got": "f" * 64}

    def test_half_a_query(self, stub, version):
        whole = wire.pack(version.manifest.model, unit(1))
        half = embedding_pb2.Embeddings(model=whole.model, dimension=D, data=whole.data[: 2 * D])
        bad, violation = search_pb2.SearchRequest(queries=half), ("queries.data", "MALFORMED_EMBEDDINGS")
        self.check(stub, version, bad, code=INVALID, reason=violation[1], violations=[violation])

    def test_an_over_size_message(self, stub, version):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Search(request(version, np.zeros((2**18, D + 1))), timeout=TIMEOUT_S)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(stub.Search(request(version, unit(1)), timeout=TIMEOUT_S).results) == 1

    def check(self, stub, version, bad, *, code, reason, violations):
        for call in (stub.Search, stub.Classify):
            message = bad if call == stub.Search else search_pb2.ClassifyRequest.FromString(bad.SerializeToString())
            with pytest.raises(grpc.RpcError) as caught:
                call(message, timeout=TIMEOUT_S)
            info, found = details(caught.value)
            assert (caught.value.code(), info.reason, found) == (code, reason, violations)
            assert len(stub.Search(request(version, unit(2)), timeout=TIMEOUT_S).results) == 2
        return info


class TestAnswers:
    @pytest.mark.parametrize("spec", [IndexSpec("SQ8"), IndexSpec("IVF16,Flat", metric="l2", nprobe=4)])
    def test_equal_those_of_faiss_called_directly(self, build_index, tmp_path, spawn, dial, spec):
        version = build_index(GALLERY, directory=tmp_path, spec=spec)
        index = faiss.read_index(str(version.shard_paths[0]))
        if spec.nprobe:
            index.nprobe = spec.nprobe
        distances, rows = index.search(unit(50), 10)
        response = dial(spawn("--index", tmp_path).ready()["port"]).Search(request(version, unit(50), k=10), timeout=30)
        found = [[each.item_id for each in result.neighbours] for result in response.results]
        scores = [[each.score for each in result.neighbours] for result in response.results]
        assert found == [[version.items.item_id(row) for row in each] for each in rows.tolist()]
        np.testing.assert_allclose(scores, distances if spec.metric == "ip" else -distances, rtol=1e-5, atol=1e-5)

    def test_are_the_same_whether_asked_alone_or_together(self, stub, version):
        together = stub.Search(request(version, unit(70)), timeout=TIMEOUT_S).results
        calls = [stub.Search.future(request(version, query[None]), timeout=TIMEOUT_S) for query in unit(70)]
        for call, result in zip(calls, together, strict=True):
            (alone,) = call.result().results
            assert [each.item_id for each in alone.neighbours] == [each.item_id for each in result.neighbours]

    def test_exact_ones_are_those_of_numpy(self, stub, version):
        gallery = version.embeddings.astype(np.float32)
        response = stub.Search(request(version, unit(20), exact=True), timeout=TIMEOUT_S)
        for query, result in zip(unit(20), response.results, strict=True):
            rows = np.argsort(-(gallery @ query), kind="stable")[:10]
            assert [each.item_id for each in result.neighbours] == [version.items.item_id(row) for row in rows.tolist()]


class TestRefusesToStart:
    def error(self, process):
        told = process.fatal()
        assert not process.logged("listening")
        return told

    def test_with_a_damaged_file(self, build_index, tmp_path, spawn):
        path = build_index(GALLERY, directory=tmp_path, spec=IndexSpec(shards=2)).shard_paths[1]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        message = self.error(spawn("--index", tmp_path))
        assert message.startswith(f"{path}: is damaged: its sha256 is ")

    def test_with_a_truncated_file(self, build_index, tmp_path, spawn):
        path = build_index(GALLERY, directory=tmp_path).shard_paths[0]
        path.write_bytes(path.read_bytes()[:-1])
        message = self.error(spawn("--index", tmp_path))
        assert message.startswith(f"{path}: has ")

    def test_without_an_index(self, tmp_path, spawn):
        message = self.error(spawn("--index", tmp_path))
        missing = "missing: no index was built here; `vmmr-search build` makes one"
        assert message == f"{tmp_path}/CURRENT: {missing}"

    def test_without_the_folder(self, tmp_path, spawn):
        message = self.error(spawn("--index", tmp_path / "none"))
        assert message == f"--index (VMMR_SEARCH_INDEX): there is no folder {tmp_path}/none"

    def test_when_its_index_asks_for_more_than_it_allows(self, version, spawn):
        message = self.error(spawn("--index", version.path.parents[1], env={"VMMR_SEARCH_MAX_K": "9"}))
        assert message == "--max-k (VMMR_SEARCH_MAX_K) must be >= 10, the k of the index, got 9"

    def test_when_the_largest_call_would_never_fit(self, version, spawn):
        message = self.error(spawn("--index", version.path.parents[1], "--max-queue", "100"))
        assert message.startswith("--max-queue (VMMR_SEARCH_MAX_QUEUE) must be >= --max-queries ")


def test_health_and_metrics_tell_of_the_service(version, spawn, dial):
    ports = spawn("--index", version.path.parents[1]).ready()
    with grpc.insecure_channel(f"127.0.0.1:{ports['port']}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        status = health.Check(health_pb2.HealthCheckRequest(service="vmmr.search.v1.SearchService"), timeout=TIMEOUT_S)
    assert status.status == health_pb2.HealthCheckResponse.SERVING
    dial(ports["port"]).Search(request(version, unit(3)), timeout=TIMEOUT_S)
    text = (
        urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics_port']}/metrics", timeout=TIMEOUT_S).read().decode()
    )
    assert 'vmmr_batch_items_sum{batcher="search"} 4.0' in text, "three, and one to warm up"


def test_several_servers_serve_one_index(version, spawn, dial):
    processes = [spawn("--index", version.path.parents[1]) for _ in range(2)]
    stubs = [dial(process.ready()["port"]) for process in processes]
    first, second = (stub.Search(request(version, unit(9)), timeout=TIMEOUT_S).results for stub in stubs)
    assert first == second
    assert len(first) == 9


def test_without_verifying_damage_is_not_noticed_and_the_log_says_what_was_done(build_index, tmp_path, spawn, dial):
    version = build_index(GALLERY, directory=tmp_path)
    with version.shard_paths[0].open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\0\0")
    process = spawn("--index", tmp_path, "--no-verify")
    port = process.ready()["port"]
    assert len(dial(port).Search(request(version, unit(2)), timeout=TIMEOUT_S).results) == 2
    opened = process.first("opened")
    assert (opened["verified"], opened["index"]) == (False, str(version.path))
    assert opened["seconds"] > 0
    assert "sha256" in TestRefusesToStart().error(spawn("--index", tmp_path))


def test_sigterm_under_load_loses_no_accepted_call(version, spawn, dial):
    process = spawn("--index", version.path.parents[1], "--drain-pause-s", "0.2")
    port = process.ready()["port"]
    codes, flowing = [], threading.Semaphore(0)

    def call_until_gone(stub):
        while True:
            try:
                stub.Search(request(version, unit(4)), timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                codes.append(error.code())
                return
            codes.append(grpc.StatusCode.OK)
            flowing.release()

    callers = [threading.Thread(target=call_until_gone, args=[dial(port)]) for _ in range(8)]
    for caller in callers:
        caller.start()
    for _ in range(50):
        assert flowing.acquire(timeout=TIMEOUT_S)
    process.popen.send_signal(signal.SIGTERM)
    for caller in callers:
        caller.join(TIMEOUT_S)
    assert process.wait() == 0
    answered = [line["code"] for line in process.logged("call")]
    assert codes.count(grpc.StatusCode.OK) == answered.count("OK"), "an answer was made that nobody got"
    assert set(answered) <= {"OK", "UNAVAILABLE"}
