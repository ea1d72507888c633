"""The life of a server, with real processes and real signals."""

import asyncio
import json
import queue
import re
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import BinaryIO

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

SERVICE = "vmmr.embedder.v1.EmbedderService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
TIMEOUT_S = 60


def photos(*milliseconds: int) -> embedder_pb2.EmbedRequest:
    return embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=str(ms).encode()) for ms in milliseconds])


@pytest.fixture(params=[(), ("--workers", "2")], ids=["alone", "two workers"])
def spawn(spawn, request):
    """To its callers, and to who starts and stops it, a server is the same in one process and in several."""
    return lambda *flags, **options: spawn(*flags, *request.param, **options)


@pytest.fixture
def dial():
    """Opens channels to a port, and closes them. No retries: what the server says is what a test sees."""
    channels = []

    def open_channel(port: int) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        channels.append(grpc.insecure_channel(f"127.0.0.1:{port}", options))
        return channels[-1]

    yield open_channel
    for channel in channels:
        channel.close()


def health_of(channel: grpc.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S, wait_for_ready=True).status


def code_of(call, *args, **kwargs) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, timeout=TIMEOUT_S, **kwargs)
    return caught.value.code()


def test_health_is_not_serving_until_the_warm_up_has_ended_and_calls_are_turned_away(spawn, dial):
    process = spawn("--warm-up", "never")
    channel = dial(process.first("listening")["port"])
    assert [health_of(channel, name) for name in ("", SERVICE)] == [NOT_SERVING, NOT_SERVING]
    assert code_of(embedder_pb2_grpc.EmbedderServiceStub(channel).Embed, photos(1)) is grpc.StatusCode.UNAVAILABLE
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 0, "a warm-up, whose thread nothing ends, does not hold up the end"
    assert process.first("stopped")


def test_health_is_serving_for_each_service_and_the_whole_once_warm(spawn, dial):
    channel = dial(spawn().first("ready")["port"])
    assert [health_of(channel, name) for name in ("", SERVICE)] == [SERVING, SERVING]
    assert code_of(health_pb2_grpc.HealthStub(channel).Check, health_pb2.HealthCheckRequest(service="no.Such")) is (
        grpc.StatusCode.NOT_FOUND
    )


def test_what_stays_for_good_is_not_looked_through_for_garbage_while_calls_wait(spawn):
    process = spawn()
    process.first("ready")
    process.popen.send_signal(signal.SIGTERM)
    assert process.first("closed")["frozen"] > 10_000


def test_a_failed_warm_up_ends_the_process_with_its_reason(spawn):
    process = spawn("--warm-up", "fails")
    assert process.fatal() == "the model is corrupt"
    assert process.first("closed")["frozen"] == 0
    assert process.first("listening")
    assert not [line for line in process.lines if '"ready"' in line]


def test_the_port_file_tells_the_ports_once_ready(spawn, tmp_path):
    process = spawn("--port-file", str(tmp_path / "ports.json"), "--metrics-port", "0")
    ready = process.first("ready")
    ports = json.loads((tmp_path / "ports.json").read_text())
    assert ports == {"port": ready["port"], "metrics_port": ready["metrics_port"]}
    with urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics_port']}/metrics", timeout=TIMEOUT_S) as response:
        assert re.search(rb'^vmmr_calls_in_flight({worker="1"})? 0.0$', response.read(), re.MULTILINE)


class Load:
    """Callers who call without a pause until they are turned away; each keeps what it heard."""

    def __init__(self, channels: list[grpc.Channel], callers: int) -> None:
        self.answers = 0
        self.errors: list[tuple[grpc.StatusCode, str]] = []
        self._enough = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._call, args=(c,)) for c in channels for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, answers: int) -> None:
        for _ in range(answers):
            assert self._enough.acquire(timeout=TIMEOUT_S)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _call(self, channel: grpc.Channel) -> None:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        while True:
            try:
                stub.Embed(photos(2, 3), timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                self.errors.append((error.code(), error.details()))
                return
            self.answers += 1
            self._enough.release()


def begun(channel: grpc.Channel) -> tuple[grpc.Future, Callable[[], None]]:
    """A call that lasts until it is finished, for its message does not come before that."""
    messages = queue.SimpleQueue()
    call = channel.stream_unary(
        f"/{SERVICE}/Embed", response_deserializer=embedder_pb2.EmbedResponse.FromString
    ).future(iter(messages.get, None), timeout=TIMEOUT_S)

    def finish() -> None:
        messages.put(photos(1).SerializeToString())
        messages.put(None)

    return call, finish


def test_sigterm_under_load_loses_no_accepted_request(spawn, dial, tmp_path):
    process = spawn("--drain-pause-s", "0.1", "--refuses-until", str(tmp_path / "all have heard"))
    port = process.first("ready")["port"]
    load = Load([dial(port) for _ in range(3)], callers=4)
    load.wait_for(40)
    process.popen.send_signal(signal.SIGTERM)
    load.join()
    (tmp_path / "all have heard").touch()
    assert process.wait() == 0
    assert set(load.errors) == {(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")}
    calls = [json.loads(line) for line in process.lines if '"call"' in line]
    assert sum(call["code"] == "OK" for call in calls) == load.answers, "what the server served, a caller has"
    assert {call["code"] for call in calls} == {"OK", "UNAVAILABLE"}
    assert len({call["request_id"] for call in calls}) == len(calls)


def test_a_stop_waits_for_a_long_call_with_health_down_and_new_calls_served_meanwhile(spawn, dial, tmp_path):
    process = spawn("--pauses-until", str(tmp_path / "served meanwhile"))
    channel = dial(process.first("ready")["port"])
    stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
    long, finish = begun(channel)
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    assert next(watch).status == SERVING
    process.popen.send_signal(signal.SIGINT)
    assert next(watch).status == NOT_SERVING
    assert stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S).model.name == "echo"
    (tmp_path / "served meanwhile").touch()
    process.first("draining")
    finish()
    assert long.result().embeddings.dimension == 1
    assert process.wait() == 0


def test_a_server_that_gives_up_while_it_warms_up_ends_as_one_whose_warm_up_fails(spawn, tmp_path):
    (tmp_path / "gone").touch()
    process = spawn("--warm-up", "waits", "--gives-up-on", str(tmp_path / "gone"))
    assert process.fatal() == "the disk is gone"
    assert process.first("closed")
    assert not process.logged("ready")


# Of several workers the one that gives up is started again: test_supervisor.py.
alone = pytest.mark.parametrize("spawn", [()], ids=["alone"], indirect=True)


@alone
def test_a_server_that_gives_up_ends_in_order_and_a_signal_that_comes_then_is_the_first(spawn, dial, tmp_path):
    process = spawn("--gives-up-on", str(tmp_path / "gone"), "--pauses-until", str(tmp_path / "signalled"))
    channel = dial(process.first("ready")["port"])
    call, finish = begun(channel)
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    assert next(watch).status == SERVING
    (tmp_path / "gone").touch()
    assert next(watch).status == NOT_SERVING
    process.popen.send_signal(signal.SIGTERM)
    process.first("signal")
    (tmp_path / "signalled").touch()
    process.first("draining")
    finish()
    assert call.result().embeddings.dimension == 1
    assert process.fatal() == "the disk is gone"
    assert process.first("closed")


@alone
def test_a_server_that_ends_by_a_signal_does_not_give_up_any_more(spawn, dial, tmp_path):
    process = spawn("--gives-up-on", str(tmp_path / "gone"), "--drain-pause-s", "0")
    channel = dial(process.first("ready")["port"])
    call, finish = begun(channel)
    assert health_of(channel) == SERVING, "the call that was begun before has come"
    process.popen.send_signal(signal.SIGTERM)
    process.first("draining")
    (tmp_path / "gone").touch()
    process.first("given up")
    finish()
    assert call.result().embeddings.dimension == 1
    assert process.wait() == 0
    assert not process.logged("ended by an error")


def test_a_health_watcher_does_not_hold_up_the_end(spawn, dial):
    process = spawn("--drain-pause-s", "0", "--drain-s", "1000")
    watch = health_pb2_grpc.HealthStub(dial(process.first("ready")["port"])).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == SERVING
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    with pytest.raises(grpc.RpcError) as caught:
        list(watch)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_call_longer_than_the_drain_is_ended_with_an_answer_that_invites_a_retry(spawn, dial):
    process = spawn("--drain-pause-s", "0", "--drain-s", "0.2")
    channel = dial(process.first("ready")["port"])
    waits = [begun(channel) for _ in range(3)]
    embedder_pb2_grpc.EmbedderServiceStub(channel).GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)
    process.popen.send_signal(signal.SIGTERM)
    assert {call.code() for call, _ in waits} == {grpc.StatusCode.UNAVAILABLE}
    assert process.wait() == 0
    for _, finish in waits:
        finish()


def test_a_second_signal_ends_the_process_at_once(spawn, dial):
    process = spawn("--drain-s", "1000", "--drain-pause-s", "1000")
    process.first("ready")
    process.popen.send_signal(signal.SIGTERM)
    process.first("signal")
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM


def test_a_taken_port_is_told_not_shared(spawn):
    port = str(spawn().first("ready")["port"])
    second = spawn("--port", port)
    assert second.fatal() == f"cannot listen on 127.0.0.1:{port}: is the port taken, or the host not this machine's?"


def test_a_taken_metrics_port_is_told(spawn):
    port = str(spawn("--metrics-port", "0").first("ready")["metrics_port"])
    second = spawn("--metrics-port", port)
    assert second.fatal() == f"cannot serve metrics on 127.0.0.1:{port}: Address already in use"


def test_a_wrong_setting_is_told(spawn):
    process = spawn("--max-request-bytes", "0")
    assert process.fatal() == "--max-request-bytes must be >= 1, got 0"
    assert len(process.lines) == 1


WRONG = "--max-request-bytes must be >= 1, got 0"


@pytest.mark.parametrize("text", [("--log-format", "text"), ("--log-format=text",), ()])
def test_where_the_log_is_text_an_error_is_a_line_for_people(spawn, text):
    process = spawn("--max-request-bytes", "0", *text, env={"ECHO_LOG_FORMAT": "json" if text else "text"})
    assert process.wait() == 1
    assert process.lines == [f"echo: error: {WRONG}\n"]


def test_a_wrong_form_of_the_log_is_told_in_json(spawn):
    assert spawn("--log-format", "xml").fatal() == "--log-format must be one of json, text, got xml"


def test_wrong_arguments_are_told_in_the_form_of_the_log(spawn):
    process = spawn("--prot", "5")
    assert (process.wait(), process.said()) == (2, [])
    assert [line["error"] for line in process.logged("ended by an error")] == ["unrecognized arguments: --prot 5"]
    text = spawn("--prot", "5", "--log-format", "text")
    assert text.wait() == 2
    assert text.said()[0].startswith("usage: ")


def test_an_error_that_nobody_foresaw_is_a_line_of_the_log_with_its_traceback(spawn):
    process = spawn("--warm-up", "breaks")
    assert "nobody thought of this" in process.fatal()
    (line,) = process.logged("ended by an error")
    assert "Traceback (most recent call last)" in line.get("exc_info", line["error"])


def test_a_generic_client_learns_the_methods_by_reflection(spawn, dial):
    database = ProtoReflectionDescriptorDatabase(dial(spawn().first("ready")["port"]))
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    methods = DescriptorPool(database).FindServiceByName(SERVICE).methods
    expected = embedder_pb2.DESCRIPTOR.services_by_name["EmbedderService"].methods
    assert [method.name for method in methods] == [method.name for method in expected]


def told(channel, version, **question):
    """What reflection answers to one question, as the bytes after what is asked."""
    message = reflection_pb2.ServerReflectionRequest(**question)
    method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    ask = channel.stream_stream(
        method, lambda m: m.SerializeToString(), reflection_pb2.ServerReflectionResponse.FromString
    )
    return next(ask(iter([message]), timeout=TIMEOUT_S))


def test_reflection_answers_in_both_versions_the_same_and_describes_all_that_it_lists(spawn, dial):
    channel = dial(spawn().first("ready")["port"])
    listed = told(channel, "v1", list_services="")
    names = {service.name for service in listed.list_services_response.service}
    assert {SERVICE, "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= names
    assert told(channel, "v1alpha", list_services="") == listed
    for name in names:
        described = told(channel, "v1", file_containing_symbol=name)
        assert described.HasField("file_descriptor_response"), name
        assert described == told(channel, "v1alpha", file_containing_symbol=name)


def test_v1_is_described_as_what_it_is(spawn, dial):
    channel = dial(spawn().first("ready")["port"])
    found = told(channel, "v1", file_containing_symbol="grpc.reflection.v1.ServerReflection")
    (serialized,) = found.file_descriptor_response.file_descriptor_proto
    pool = DescriptorPool()
    pool.AddSerializedFile(serialized)
    (method,) = pool.FindServiceByName("grpc.reflection.v1.ServerReflection").methods
    assert (method.input_type.full_name, method.output_type.full_name) == (
        "grpc.reflection.v1.ServerReflectionRequest",
        "grpc.reflection.v1.ServerReflectionResponse",
    )
    assert b"v1alpha" not in serialized


async def test_what_is_to_be_closed_is_closed_even_if_the_stop_fails(echo, monkeypatch):
    async def fails(_):
        raise RuntimeError("no way to stop")

    closed = asyncio.Event()

    async def close():
        closed.set()

    monkeypatch.setattr(echo.Server, "stop", fails)
    monkeypatch.setattr("svckit.logs.configure", lambda *_: None)
    server, batcher = echo.build(echo.EchoConfig(metrics_port=1, host="256.0.0.1"))
    async with batcher:
        with pytest.raises(RuntimeError, match="no way to stop"):
            await server.run(lambda: echo.warm_up("quick"), close)
    assert closed.is_set()


async def test_a_claim_that_is_watched_is_looked_at_while_the_server_runs_and_another_at_its_start(echo, monkeypatch):
    monkeypatch.setattr("svckit.server._CLAIMS_S", 0.01)
    holds = True
    server, batcher = echo.build(echo.EchoConfig(drain_pause_s=0.0))
    server.claim("watched", lambda: holds, watched=True)
    server.claim("at the start", lambda: holds)
    async with batcher:
        await server.start()
        await server.open()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            told = aiter(health.Watch(health_pb2.HealthCheckRequest(service="watched"), timeout=TIMEOUT_S))
            for now in (True, False, True, False):
                holds = now
                assert (await anext(told)).status == (SERVING if now else NOT_SERVING)
            asked = health_pb2.HealthCheckRequest(service="at the start")
            assert (await health.Check(asked, timeout=TIMEOUT_S)).status == SERVING
        await server.stop()


async def test_the_metrics_endpoint_ends_with_the_server(serve):
    served = await serve(metrics_port=0)
    url = f"http://127.0.0.1:{served.server.metrics_port}/metrics"
    await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=TIMEOUT_S).close())
    await served.server.stop()
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(urllib.request.urlopen, url, timeout=TIMEOUT_S)


SETTINGS, PING, GOAWAY, ACK = 4, 6, 7, 1
"""Types of HTTP/2 frames, and the flag of an answer."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, 0]) + bytes(4) + payload


def frames(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Yield the type, flags and payload of each frame that comes."""
    while head := stream.read(9):
        yield head[3], head[4], stream.read(int.from_bytes(head[:3]))


def pinged(port: int, times: int) -> list[tuple[int, int, bytes]]:
    """Ping the server so many times; return what each came to, be it the answer or the connection's end."""
    answers = []
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection, connection.makefile("rb") as received:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS))
        for number in range(times):
            connection.sendall(frame(PING, bytes([number] * 8)))
            answers.append(next(each for each in frames(received) if each[0] == GOAWAY or each[:2] == (PING, ACK)))
    return answers


async def test_a_client_may_ask_an_idle_connection_for_signs_of_life(serve, monkeypatch):
    """By default gRPC ends a connection at its third ping within some minutes."""
    monkeypatch.setattr("svckit.server._LEAST_PING_INTERVAL_MS", 0)
    answers = await asyncio.to_thread(pinged, (await serve()).server.port, 5)
    assert answers == [(PING, ACK, bytes([number] * 8)) for number in range(5)]
