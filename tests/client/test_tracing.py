"""The trace that calls belong to, as the services hear of it."""

import subprocess
import sys

import pytest
import vmmr

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEYS = ("traceparent", "tracestate", "baggage")


def sent(services) -> list[dict[str, str]]:
    calls = services.embedder.script.received + services.search.script.received
    return [{key: call.metadata[key] for key in KEYS if key in call.metadata} for call in calls]


@pytest.fixture
def client(services):
    with vmmr.Client(*services.targets) as client:
        yield client


def test_a_traceparent_that_is_given_goes_with_all_calls_and_none_without(client, services):
    client.identify(b"1")
    assert sent(services) == [{}, {}]
    with vmmr.traceparent(GIVEN):
        client.identify(b"1")
        list(client.identify_many([b"1"]))
    client.identify(b"1")
    told = [each.get("traceparent") for each in sent(services)]
    assert set(told) == {GIVEN, None}
    assert told.count(None) == 4


async def test_it_goes_with_the_calls_of_its_task(services):
    async with vmmr.AsyncClient(*services.targets) as client:
        with vmmr.traceparent(GIVEN):
            await client.identify(b"1")
    assert sent(services) == [{"traceparent": GIVEN}] * 2


@pytest.mark.parametrize(
    "bad",
    ["", "00", GIVEN + "\n", GIVEN.upper(), "00-" + "0" * 32 + "-b7ad6b7169203331-01", GIVEN.replace("00-", "ff-", 1)],
)
def test_what_is_no_traceparent_is_refused(bad):
    with pytest.raises(ValueError, match="a traceparent is 00-TRACE-PARENT-FLAGS"), vmmr.traceparent(bad):
        pass


def test_the_active_span_of_a_caller_is_the_parent_of_a_span_of_each_call(client, services, monkeypatch):
    pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not installed")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)  # a global provider would be there for ever
    with trace.get_tracer("test").start_as_current_span("identify") as span:
        client.identify(b"1")
        with pytest.raises(vmmr.InvalidPhotoError):
            client.identify(b"no number")
    calls = exporter.get_finished_spans()[:-1]
    assert {call.parent.span_id for call in calls} == {span.get_span_context().span_id}
    assert [call.name.rpartition(".")[2] for call in calls] == [
        "EmbedderService/Embed",
        "SearchService/Classify",
        "EmbedderService/Embed",
    ]
    assert [call.status.is_ok for call in calls] == [True, True, False]
    headers = [f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-" for call in calls]
    assert sorted(each["traceparent"][:-2] for each in sent(services)) == sorted(headers)


def test_the_client_does_not_import_opentelemetry():
    program = (
        "import sys, vmmr; vmmr.Client(); print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
