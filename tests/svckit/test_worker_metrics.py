"""The metrics of several processes, read from real endpoints."""

import pytest
from grpc import StatusCode
from prometheus_client import CollectorRegistry, generate_latest

from svckit.metrics import Endpoint, Metrics
from svckit.worker_metrics import WorkerMetrics


@pytest.fixture
def serving():
    """Serves metrics, of a worker that has answered so many calls, at a port."""
    endpoints = []

    def serve(calls):
        metrics = Metrics()
        for _ in range(calls):
            metrics.call_began()
            metrics.call_ended("/a.B/C", StatusCode.OK, None, 0.003)
        endpoints.append(Endpoint(metrics.registry, host="127.0.0.1", port=0))
        return endpoints[-1].port

    yield serve
    for endpoint in endpoints:
        endpoint.stop()


def gathered(ports):
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(lambda: ports))
    return registry


def test_every_sample_of_every_worker_is_there_with_its_labels_and_the_workers_number(serving):
    value = gathered({0: serving(2), 3: serving(5)}).get_sample_value
    call = {"grpc_service": "a.B", "grpc_method": "C"}
    for worker, calls in (("0", 2), ("3", 5)):
        assert value("grpc_server_handled_total", {**call, "grpc_code": "OK", "worker": worker}) == calls
        assert value("grpc_server_handling_seconds_bucket", {**call, "le": "0.005", "worker": worker}) == calls
        assert value("vmmr_calls_in_flight", {"worker": worker}) == 0
        assert value("process_resident_memory_bytes", {"worker": worker}) > 0


def test_a_family_is_told_once_with_its_type(serving):
    text = generate_latest(gathered({0: serving(1), 1: serving(1)})).decode()
    assert text.count("# TYPE grpc_server_handled_total counter\n") == 1
    assert text.count("# TYPE grpc_server_handling_seconds histogram\n") == 1


def test_who_does_not_answer_is_left_out(serving):
    gone = Endpoint(Metrics().registry, host="127.0.0.1", port=0)
    gone.stop()
    registry = gathered({0: gone.port, 1: serving(1)})
    workers = {sample.labels["worker"] for family in registry.collect() for sample in family.samples}
    assert workers == {"1"}


def test_no_workers_have_no_metrics():
    assert list(gathered({}).collect()) == []


def test_a_proxy_in_the_environment_is_not_asked(serving, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    assert gathered({0: serving(1)}).get_sample_value("vmmr_calls_in_flight", {"worker": "0"}) == 0
