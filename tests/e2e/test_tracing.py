"""Traces of the pair as a backend gets them: over OTLP, through a real collector where one is installed."""

import itertools
import re
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import pytest
import vmmr

pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not installed")

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from bench.lib.otlp import Received, Span, collecting, collector, receiving
from bench.pair.trace import tree

EMBED, CLASSIFY = "vmmr.embedder.v1.EmbedderService/Embed", "vmmr.search.v1.SearchService/Classify"
WHOLE_TREE = [
    (0, "caller", "identify"),
    (1, "caller", EMBED),
    (2, "vmmr-embedder", EMBED),
    (3, "vmmr-embedder", "decode"),
    (3, "vmmr-embedder", "detect"),
    (3, "vmmr-embedder", "queue"),
    (3, "vmmr-embedder", "network"),
    (1, "caller", CLASSIFY),
    (2, "vmmr-search", CLASSIFY),
    (3, "vmmr-search", "queue"),
    (3, "vmmr-search", "shards"),
    (4, "vmmr-search", "shard"),
    (4, "vmmr-search", "shard"),
    (4, "vmmr-search", "shard"),
    (3, "vmmr-search", "vote"),
]


@pytest.fixture(scope="module")
def backend() -> Iterator[tuple[Received, str]]:
    """What has arrived, and where to send it: to a collector that passes it on, or, where none can run, to the receiver itself."""
    with receiving() as (received, endpoint), _collector(endpoint) as there:
        yield received, there


def _collector(endpoint: str) -> AbstractContextManager[str]:
    program = collector()
    return collecting(program, endpoint) if program else nullcontext(endpoint)


@pytest.fixture(scope="module")
def traced(backend, module_run, drawn, root):
    """The pair with `--tracing`: the processes, and their addresses."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": backend[1], "OTEL_BSP_SCHEDULE_DELAY": "100"}
    flags = ("--port", 0, "--metrics-port", 0, "--tracing")
    servers = [
        module_run("-m", "embedder_svc", "serve", *flags, env=env),
        module_run("-m", "search_svc", "serve", "--index", drawn.index, *flags, env=env),
    ]
    return servers, [f"127.0.0.1:{server.ready()['port']}" for server in servers]


@pytest.fixture(scope="module")
def photo(drawn) -> bytes:
    return next(drawn.photos.glob("*/*")).read_bytes()


def whole(spans: Sequence[Span], trace_id: str, count: int) -> list[Span]:
    found = [span for span in spans if span.trace_id == trace_id]
    return found if len(found) >= count else []


def test_a_trace_of_identify_has_all_stages_in_their_places_and_times(backend, traced, photo, monkeypatch):
    received, endpoint = backend
    servers, addresses = traced
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "caller"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint)))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)  # a global provider would be there for ever
    with (
        vmmr.Client(*addresses, timeout_s=60) as client,
        trace.get_tracer("test").start_as_current_span("identify") as span,
    ):
        found = client.identify(photo)
    trace_id = f"{span.get_span_context().trace_id:032x}"
    rows = list(tree(received.wait(lambda all_: whole(all_, trace_id, len(WHOLE_TREE)))))
    rows = [(depth, each) for depth, each in rows if each.trace_id == trace_id]
    assert [(depth, each.service, each.name) for depth, each in rows] == WHOLE_TREE
    check_times(rows)
    check_attributes(rows, found)
    for server, method in zip(servers, (EMBED, CLASSIFY), strict=True):
        check_log_and_metrics(server, method, trace_id)


def check_times(rows: Sequence[tuple[int, Span]]) -> None:
    """A span is within its parent, and the stages of a service follow each other, but for shards, which are searched side by side."""
    by_id = {span.span_id: span for _, span in rows}
    for _, span in rows:
        if span.parent_id in by_id:
            parent = by_id[span.parent_id]
            assert parent.began_ns <= span.began_ns <= span.ended_ns <= parent.ended_ns, (span, parent)
    for (depth, before), (next_depth, after) in itertools.pairwise(rows):
        if depth == next_depth and before.name != "shard":
            assert before.ended_ns <= after.began_ns, (before, after)


def check_attributes(rows: Sequence[tuple[int, Span]], found: vmmr.Identification) -> None:
    named = {span.name: span for _, span in rows if span.service != "caller"}
    assert named[EMBED].attributes["rpc.response.status_code"] == "OK"
    assert {named[method].attributes["vmmr.request_id"] for method in (EMBED, CLASSIFY)} == {found.request_id}
    assert named["network"].attributes["vmmr.batch.items"] == 1
    shards = {span.attributes["vmmr.shard"] for _, span in rows if span.name == "shard"}
    assert len(shards) == found.provenance.shards_total == 3
    assert named["decode"].ms == pytest.approx(found.times.embed.decode_ms, abs=0.01)
    assert named["network"].ms == pytest.approx(found.times.embed.infer_ms, abs=1)
    assert not any(span.failed for _, span in rows)


def check_log_and_metrics(server, method: str, trace_id: str) -> None:
    """The line of the call, and an exemplar of its duration, lead to the trace."""
    line = server.first("call", method=f"/{method}")
    assert line["trace_id"] == trace_id
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    url = f"http://127.0.0.1:{server.ready()['metrics_port']}/metrics"
    with urllib.request.urlopen(urllib.request.Request(url, headers=accept)) as reply:
        text = reply.read().decode()
    name = method.partition("/")[2]
    told = re.findall(rf'handling_seconds_bucket{{.*grpc_method="{name}".*}} .* # {{(.*)}}', text)
    assert {frozenset(each.split(",")) for each in told} == {
        frozenset((f'trace_id="{trace_id}"', f'span_id="{line["span_id"]}"'))
    }


def test_the_door_goes_on_with_the_trace_of_its_caller(backend, traced, module_run, photo):
    received, endpoint = backend
    embedder, search = traced[1]
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    flags = ("--port", 0, "--embedder", embedder, "--search", search, "--tracing")
    door = module_run("-m", "web", "serve", *flags, env=env)
    trace_id, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    request = urllib.request.Request(
        f"http://127.0.0.1:{door.ready()['port']}/v1/identify",
        photo,
        {"Content-Type": "image/png", "traceparent": f"00-{trace_id}-{caller}-01"},
    )
    urllib.request.urlopen(request).close()
    expected = [row for row in WHOLE_TREE if row[0]]
    spans = whole(received.wait(lambda all_: whole(all_, trace_id, len(expected) + 1)), trace_id, 1)
    rows = list(tree(spans, caller))
    assert (rows[0][1].service, rows[0][1].name) == ("vmmr-web", "POST /v1/identify")
    assert rows[0][1].attributes["http.response.status_code"] == 200
    told = [(depth, each.service.replace("vmmr-web", "caller"), each.name) for depth, each in rows[1:]]
    assert told == expected
    assert "url.path" not in rows[0][1].attributes  # it may hold an answer's secret name
    check_times(rows)
    assert door.first("request")["trace_id"] == trace_id
