"""Spans of a server's calls, by the example service as a process of its own, and what they cost where they are off."""

import re
import subprocess
import sys
from contextvars import copy_context
from pathlib import Path

import grpc
import pytest
import trustme
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not installed")

from bench.lib.otlp import receiving
from svckit import spans, tracing
from svckit.config import ConfigError

METHOD = "vmmr.embedder.v1.EmbedderService/Embed"
TRACE_ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector():
    with receiving() as (received, endpoint):
        yield received, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture
def embed(connect):
    """`embed(server, *contents, flags=...)` calls the example service; `flags` are those of a traceparent."""

    def call(server, *contents, flags=None, timeout=60, **metadata):
        stub = embedder_pb2_grpc.EmbedderServiceStub(connect(server.ready()["port"]))
        request = embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=content) for content in contents])
        if flags is not None:
            metadata["traceparent"] = f"00-{TRACE_ID}-{PARENT}-{flags}"
        return stub.Embed(request, timeout=timeout, metadata=tuple(metadata.items()))

    return call


def named(received, service, count):
    """The spans of a service, once there are so many: the call's, and those below it by name."""
    found = received.wait(lambda all_: sum(span.service == service for span in all_) >= count)
    mine = [span for span in found if span.service == service]
    (root,) = (span for span in mine if span.name == METHOD)
    return root, {span.name: span for span in mine if span.parent_id == root.span_id}


def test_a_call_is_a_span_below_its_callers_with_its_stages_below_it(collector, spawn, embed):
    received, env = collector
    server = spawn("--tracing", env=env | {"OTEL_SERVICE_NAME": "below"})
    embed(server, b"1", b"0", flags="01", **{"x-request-id": "mine"})
    root, stages = named(received, "below", 3)
    assert (root.trace_id, root.parent_id, root.failed) == (TRACE_ID, PARENT, False)
    assert root.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
        "vmmr.request_id": "mine",
    }
    assert stages.keys() == {"queue", "work"}
    assert stages["work"].attributes == {"vmmr.batch.items": 2}
    assert root.began_ns <= stages["queue"].began_ns <= stages["queue"].ended_ns == stages["work"].began_ns
    assert stages["work"].ms >= 1
    assert stages["work"].ended_ns <= root.ended_ns
    line = server.first("call")
    assert (line["trace_id"], line["span_id"]) == (TRACE_ID, root.span_id)


def test_a_call_whose_caller_is_not_sampled_is_in_the_log_alone(collector, spawn, embed):
    received, env = collector
    server = spawn("--tracing", env=env | {"OTEL_SERVICE_NAME": "unsampled"})
    embed(server, b"0", flags="00")
    assert server.first("call")["trace_id"] == TRACE_ID
    server.popen.terminate()
    assert server.wait() == 0
    assert not [span for span in received.spans if span.service == "unsampled"]


def test_a_call_that_fails_says_why_and_only_a_servers_failure_is_an_error(collector, spawn, embed):
    received, env = collector
    server = spawn("--tracing", env=env | {"OTEL_SERVICE_NAME": "fails"})
    with pytest.raises(grpc.RpcError):
        embed(server, b"no number")
    root, _ = named(received, "fails", 1)
    assert (root.attributes["error.type"], root.attributes["rpc.response.status_code"]) == (
        "INVALID_IMAGE",
        "INVALID_ARGUMENT",
    )
    assert not root.failed


def test_a_call_whose_time_passes_in_the_queue_shows_that_it_waited(collector, spawn, embed):
    received, env = collector
    server = spawn(
        "--tracing", env=env | {"OTEL_SERVICE_NAME": "queued", "OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    )
    stub = embedder_pb2_grpc.EmbedderServiceStub
    with grpc.insecure_channel(f"127.0.0.1:{server.ready()['port']}") as channel:
        first = stub(channel).Embed.future(
            embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=b"600000")]), timeout=600
        )
        server_busy(channel)
        timeout_s = 0.3
        while not (waited := waits(received, "queued")):  # on a busy machine the time may pass before the call waits
            with pytest.raises(grpc.RpcError):
                embed(server, b"0", flags="01", timeout=timeout_s)
            timeout_s *= 2
        first.cancel()
    queue = waited[0]
    found = received.wait(lambda all_: any(span.span_id == queue.parent_id for span in all_))
    (root,) = (span for span in found if span.span_id == queue.parent_id)
    assert root.failed
    assert root.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
    assert [span.name for span in found if span.parent_id == root.span_id] == ["queue"]


def waits(received, service):
    """The spans of a service that tell of time in its queue, a tenth of a second at least."""
    return [span for span in received.spans if (span.service, span.name) == (service, "queue") and span.ms > 100]


def server_busy(channel):
    """Return once the first batch runs: the backend has counted its items."""
    get = embedder_pb2_grpc.EmbedderServiceStub(channel).GetModel
    while not get(embedder_pb2.GetModelRequest(), timeout=60).model.dimension:
        pass


def test_hostile_trace_headers_are_no_parents_and_harm_nothing(collector, spawn, embed):
    received, env = collector
    server = spawn("--tracing", env=env | {"OTEL_SERVICE_NAME": "hostile"})
    hostile = [
        "",
        "00-zz",
        "ff-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "x" * 3000,  # with the others less than 8 KiB, of more of which gRPC refuses some calls, by chance
    ]
    for value in hostile:
        embed(server, b"0", traceparent=value, tracestate="a=b," * 500, baggage="k=v," * 500)
    found = received.wait(lambda all_: sum(s.service == "hostile" and s.name == METHOD for s in all_) == len(hostile))
    assert {span.parent_id for span in found if span.service == "hostile" and span.name == METHOD} == {""}


def test_spans_that_nobody_takes_keep_the_end_waiting_no_longer_than_said(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(spans, "_LAST_EXPORT_S", 0.1)
    traced = spans.Tracing("test")
    call = copy_context().run(traced.call, "method", (), {})  # as in a server, where each has its own
    call.end({}, failed=False)
    shut = []
    monkeypatch.setattr(
        traced._exporter, "shutdown", lambda *_, shutdown=traced._exporter.shutdown, **__: (shut.append(1), shutdown())
    )
    traced.stop()
    assert shut


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER must be otlp, got 'zipkin'"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/protobuf",
            "OTEL_EXPORTER_OTLP_PROTOCOL must be grpc, got 'http/protobuf'",
        ),
        ("OTEL_TRACES_SAMPLER", "sometimes", "OTEL_TRACES_SAMPLER must be one of always_on, .*, got 'sometimes'"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", r"a variable of OpenTelemetry \(OTEL_\*\) is wrong: .*'soon'"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "OTEL_EXPORTER_OTLP_COMPRESSION"),
    ],
)
def test_a_variable_that_is_wrong_is_named(monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=said):
        tracing.start("test")


@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
@pytest.mark.parametrize("share", ["ten", "10", "-0.1", "nan"])
def test_a_share_of_traces_that_is_none_is_named(monkeypatch, sampler, share):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    with pytest.raises(ConfigError, match=f"OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1, got '{share}'"):
        tracing.start("test")


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"])
@pytest.mark.parametrize("value", ["a=b, Bearer hidden", "a=b,x=hidd\u00e9n", "a=b,hidden key=hidden"])
def test_a_header_for_the_collector_that_is_none_is_named_and_not_shown(monkeypatch, caplog, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"{variable} must be NAME=VALUE.*number 2 is not") as caught:
        tracing.start("test")
    assert "hidd" not in str(caught.value) + caplog.text


def test_headers_for_the_collector_are_taken_as_opentelemetry_takes_them():
    spans._check_headers({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer abc==, x-key = a%20b,"})


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "svckit.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(
        ConfigError, match=r"--tracing needs OpenTelemetry, and opentelemetry is not installed: .*\[otel\]"
    ):
        tracing.start("test")


@pytest.fixture
def tls_files(tmp_path):
    """PEM files, by the ends of the variables that name them."""
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(tmp_path / "CERTIFICATE")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "CLIENT_CERTIFICATE")
    certificate.private_key_pem.write_to_path(tmp_path / "CLIENT_KEY")
    return {name: tmp_path / name for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")}


@pytest.mark.parametrize("kind", ["OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES"])
class TestFilesForTheCollector:
    @pytest.mark.parametrize("wrong", ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"])
    @pytest.mark.parametrize("fault", ["is missing", "is a folder", "is no PEM"])
    def test_one_that_cannot_be_used_is_named(self, monkeypatch, tls_files, kind, wrong, fault):
        tls_files[wrong].unlink()
        if fault == "is a folder":
            tls_files[wrong].mkdir()
        elif fault == "is no PEM":
            tls_files[wrong].write_text("no PEM")
        for name, path in tls_files.items():
            monkeypatch.setenv(f"{kind}_{name}", str(path))
        with pytest.raises(ConfigError, match=rf"\b{kind}_{wrong}\b.*{tls_files[wrong]}\b"):
            tracing.start("test")

    @pytest.mark.parametrize(
        ("alone", "said"),
        [
            (["CLIENT_CERTIFICATE", "CLIENT_KEY"], "_CLIENT_CERTIFICATE means nothing without .*_CERTIFICATE, which"),
            (
                ["CERTIFICATE", "CLIENT_KEY"],
                "_CERTIFICATE, .*_CLIENT_KEY: a client certificate and its key go together",
            ),
        ],
    )
    def test_one_that_opentelemetry_would_not_read_is_named(self, monkeypatch, tls_files, kind, alone, said):
        for name in alone:
            monkeypatch.setenv(f"{kind}_{name}", str(tls_files[name]))
        with pytest.raises(ConfigError, match=rf"^{kind}{said}"):
            tracing.start("test")

    def test_those_that_can_be_used_are_taken(self, tls_files, kind):
        spans._check_files(kind, {f"{kind}_{name}": str(path) for name, path in tls_files.items()})


def test_servers_without_tracing_do_not_import_it(root):
    modules = "sys, embedder_svc.__main__, search_svc.__main__"
    program = f"import {modules}; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_page_names_every_variable_that_only_one_value_is_taken_of():
    page = (Path(spans.__file__).parents[1] / "docs/tracing.md").read_text()
    assert set(spans._ONLY) <= set(re.findall(r"`(OTEL_\w+)`", page))
