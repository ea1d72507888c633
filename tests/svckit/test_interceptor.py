import asyncio
import logging
import threading
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from vmmr.embedder.v1 import embedder_pb2

from svckit.artifact import ArtifactError
from svckit.interceptor import deadline

EMBED = "/vmmr.embedder.v1.EmbedderService/Embed"
TIMEOUT_S = 30


def photos(*contents: bytes | int) -> embedder_pb2.EmbedRequest:
    encoded = (str(content).encode() if isinstance(content, int) else content for content in contents)
    return embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=content) for content in encoded])


async def error_of(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def details_of(error: grpc.aio.AioRpcError) -> dict[str, any_pb2.Any]:
    """The unpacked details of an error, by the name of their message."""
    details = rpc_status.from_call(error).details
    unpacked = {}
    for detail in details:
        message = getattr(error_details_pb2, detail.TypeName().rpartition(".")[2])()
        assert detail.Unpack(message)
        unpacked[detail.TypeName()] = message
    return unpacked


async def answer_of(call):
    """The response or the error."""
    (answer,) = await asyncio.gather(call, return_exceptions=True)
    return answer


def reason_or_none(answer) -> str | None:
    return reason_of(answer) if isinstance(answer, grpc.aio.AioRpcError) else None


def reason_of(error: grpc.aio.AioRpcError) -> str:
    return details_of(error)["google.rpc.ErrorInfo"].reason


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, str | bytes]:
    return dict(error.trailing_metadata())


async def logged_code(caplog) -> str:
    """The status in the log line of the only call, as soon as there is one."""
    async with asyncio.timeout(TIMEOUT_S):
        while not (lines := [record for record in caplog.records if record.message == "call"]):  # noqa: ASYNC110 (a log has no event)
            await asyncio.sleep(0.001)
    return lines[0].code


@pytest.fixture
def misbehave(serve, monkeypatch, echo):
    """Serves an Embed that does as it is told."""

    async def start(behaviour):
        monkeypatch.setattr(echo.Echo, "Embed", behaviour)
        return (await serve()).stub

    return start


async def test_every_bad_field_is_named_with_its_reason(serve):
    error = await error_of((await serve()).stub.Embed(photos(1, b"x", 2, b"y")))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "2 of 4 images are bad")
    details = details_of(error)
    info = details["google.rpc.ErrorInfo"]
    assert (info.reason, info.domain) == ("INVALID_IMAGE", "vmmr")
    violations = details["google.rpc.BadRequest"].field_violations
    assert [(v.field, v.reason, v.description) for v in violations] == [
        ("images[1].content", "IMAGE_FORMAT", "not a number: b'x'"),
        ("images[3].content", "IMAGE_FORMAT", "not a number: b'y'"),
    ]


async def test_an_errors_metadata_travels(serve):
    error = await error_of((await serve()).stub.Embed(photos()))
    assert details_of(error)["google.rpc.ErrorInfo"].metadata == {"max_images": "8"}


@pytest.fixture
async def silent():
    """Begins a call whose message never comes; gives the call."""
    calls = []

    def begin(channel, **options):
        calls.append(channel.stream_unary(EMBED)(**options))
        return calls[-1]

    yield begin
    for call in calls:
        call.cancel()


async def begun(served, calls: int) -> None:
    """Waits until so many calls are being served."""
    registry = served.server.metrics.registry
    async with asyncio.timeout(TIMEOUT_S):
        while registry.get_sample_value("vmmr_calls_in_flight") < calls:  # noqa: ASYNC110 (a gauge has no event)
            await asyncio.sleep(0.001)


async def test_more_calls_than_the_server_takes_are_refused_before_their_message_is_read(serve, silent):
    served = await serve(max_concurrent_calls=2)
    inside = [silent(served.channel) for _ in range(2)]
    await begun(served, 2)
    assert reason_of(await error_of(silent(served.channel, timeout=TIMEOUT_S))) == "QUEUE_FULL"
    assert reason_of(await error_of(served.stub.Embed(photos(1)))) == "QUEUE_FULL"
    for call in inside:
        await call.write(photos(1).SerializeToString())
        await call.done_writing()
        assert embedder_pb2.EmbedResponse.FromString(await call).embeddings.dimension == 1
    assert (await served.stub.Embed(photos(1))).embeddings.dimension == 1, "they left"


async def test_a_message_that_does_not_come_ends_its_call(serve, silent, monkeypatch):
    monkeypatch.setattr("svckit.interceptor._RECEIVE_S", 0.05)
    served = await serve(max_concurrent_calls=1)
    assert reason_of(await error_of(silent(served.channel, timeout=TIMEOUT_S))) == "DEADLINE_EXCEEDED"
    monkeypatch.undo()
    assert (await served.stub.Embed(photos(1))).embeddings.dimension == 1


async def test_a_call_without_a_message_is_the_callers_mistake(serve, silent):
    call = silent((await serve()).channel)
    await call.done_writing()
    assert reason_of(await error_of(call)) == "MALFORMED_REQUEST"


async def test_a_drain_waits_for_a_message_that_is_still_coming(serve, silent):
    served = await serve()
    call = silent(served.channel)
    await begun(served, 1)
    stopping = asyncio.ensure_future(served.server.stop())
    while reason_or_none(await answer_of(served.stub.Embed(photos(1)))) != "SHUTTING_DOWN":
        pass
    await call.write(photos(1).SerializeToString())
    await call.done_writing()
    assert embedder_pb2.EmbedResponse.FromString(await call).embeddings.dimension == 1
    await stopping


async def test_streams_are_bounded_too(serve, monkeypatch):
    monkeypatch.setattr("svckit.server._MAX_STREAMS", 1)
    channel = (await serve(max_concurrent_calls=1)).channel
    watches = [health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(4)]
    answers = await asyncio.gather(*(watch.read() for watch in watches), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert 1 <= len(refused) <= 3
    for watch in watches:
        watch.cancel()


async def test_an_unforeseen_error_in_a_stream_tells_the_caller_nothing_either(serve, monkeypatch, caplog):
    async def fails(*_):
        raise ValueError("the secret is hunter2")

    monkeypatch.setattr("grpc_health.v1.health.aio.HealthServicer.Watch", fails)
    health = health_pb2_grpc.HealthStub((await serve()).channel)
    error = await error_of(health.Watch(health_pb2.HealthCheckRequest()).read())
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in error.details()
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_a_call_gets_the_request_id_it_came_with_or_a_new_one(serve):
    stub = (await serve()).stub
    error = await error_of(stub.Embed(photos(), metadata=(("x-request-id", "mine-7"),)))
    assert metadata_of(error)["x-request-id"] == "mine-7"
    assert details_of(error)["google.rpc.RequestInfo"].request_id == "mine-7"
    call = stub.Embed(photos(1), metadata=(("x-request-id", "n" * 129),))
    made = dict(await call.trailing_metadata())["x-request-id"]
    assert len(made) == 32, "an id that long is not taken over"


def http2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def http2_call(path: bytes, **metadata: bytes) -> bytes:
    """A connection's first bytes and a call with an empty message, by hand: gRPC's own client sends ASCII alone."""
    headers = {":method": b"POST", ":scheme": b"http", ":path": path, ":authority": b"x", "te": b"trailers"}
    headers |= {"content-type": b"application/grpc"} | {name.replace("_", "-"): v for name, v in metadata.items()}
    literal = (bytes([0, len(n)]) + n.encode() + bytes([len(v)]) + v for n, v in headers.items())
    frames = http2_frame(4, 0, 0) + http2_frame(1, 4, 1, b"".join(literal)) + http2_frame(0, 1, 1, bytes(5))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames


async def test_a_request_id_that_grpc_would_not_send_back_is_replaced(serve):
    reader, writer = await asyncio.open_connection("127.0.0.1", (await serve()).server.port)
    writer.write(http2_call(b"/vmmr.embedder.v1.EmbedderService/GetModel", x_request_id="café".encode()))
    async with asyncio.timeout(TIMEOUT_S):
        answer = await reader.readuntil(b"x-request-id ")
        assert (await reader.readexactly(32)).isalnum()
    assert b"grpc-status\x010" in answer
    writer.close()
    await writer.wait_closed()


async def test_an_unforeseen_error_tells_the_caller_nothing_and_the_log_everything(misbehave, caplog):
    async def fails(self, request, context):
        raise ValueError("the secret is hunter2")

    stub = await misbehave(fails)
    error = await error_of(stub.Embed(photos(1), metadata=(("x-request-id", "id-1"),)))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert b"hunter2" not in rpc_status.from_call(error).SerializeToString()
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "hunter2" in str(record.exc_info[1])


async def test_a_damaged_file_is_told_with_the_way_out(misbehave, caplog):
    async def reads(self, request, context):
        raise ArtifactError(Path("index/journal.db"), "entry 7 is not what was written", "`repair` saves the rest")

    error = await error_of((await misbehave(reads)).Embed(photos(1)))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.DATA_LOSS, "GALLERY_DAMAGED")
    assert error.details() == "index/journal.db: entry 7 is not what was written: `repair` saves the rest"
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.reason == error.details()


async def test_a_response_that_is_none_is_an_internal_error(misbehave):
    async def forgets(self, request, context):
        pass

    assert reason_of(await error_of((await misbehave(forgets)).Embed(photos(1)))) == "INTERNAL"


async def test_bytes_that_are_no_message_are_the_callers_mistake(serve):
    call = (await serve()).channel.unary_unary(EMBED)
    error = await error_of(call(b"\xff\xff"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_a_message_over_the_limit_is_refused_by_grpc_itself_and_the_next_is_served(serve):
    stub = (await serve(max_request_bytes=1000)).stub
    error = await error_of(stub.Embed(photos(b"1" * 1001)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert rpc_status.from_call(error) is None, "no details: docs/errors.md says so"
    assert (await stub.Embed(photos(1))).embeddings.dimension == 1


async def test_an_abort_of_the_servicers_own_passes_and_is_logged(misbehave, caplog):
    async def aborts(self, request, context):
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "twice")

    caplog.set_level(logging.INFO)
    error = await error_of((await misbehave(aborts)).Embed(photos(1)))
    assert (error.code(), error.details()) == (grpc.StatusCode.ALREADY_EXISTS, "twice")
    assert await logged_code(caplog) == "ALREADY_EXISTS"


async def test_a_method_that_does_not_exist_is_unimplemented(serve):
    error = await error_of((await serve()).channel.unary_unary("/vmmr.embedder.v1.EmbedderService/Guess")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_something_cancelled_inside_does_not_leave_the_caller_waiting(misbehave):
    async def awaits_a_cancelled_task(self, request, context):
        task = asyncio.ensure_future(asyncio.sleep(TIMEOUT_S))
        task.cancel()
        await task

    stub = await misbehave(awaits_a_cancelled_task)
    assert reason_of(await error_of(stub.Embed(photos(1), timeout=TIMEOUT_S))) == "INTERNAL"


async def items_run(served) -> int:
    return (await served.stub.GetModel(embedder_pb2.GetModelRequest())).model.dimension


async def until(condition) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not await condition():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.001)


@pytest.fixture
async def busy(serve, echo, monkeypatch):
    """Starts the service with the given settings; the backend is at the one item of a call. Gives the server, and what lets it go on."""
    go, run = threading.Event(), echo.Backend.run

    def held(backend, numbers):
        outputs = run(backend, numbers)
        assert go.wait(TIMEOUT_S)
        return outputs

    async def start(**settings):
        served = await serve(**settings)
        call = asyncio.ensure_future(served.stub.Embed(photos(1)))
        await until(lambda: items_run(served))

        async def goes_on():
            go.set()
            await call

        return served, goes_on

    monkeypatch.setattr(echo.Backend, "run", held)
    yield start
    go.set()


async def queue_is(served, length) -> bool:
    # A call that is answered, so that those before it have come.
    await items_run(served)
    return served.batcher.waiting == length


async def test_a_full_queue_says_when_to_come_back(busy):
    served, goes_on = await busy(max_queue=1)
    waits = asyncio.ensure_future(served.stub.Embed(photos(1)))
    await until(lambda: queue_is(served, 1))
    full = await error_of(served.stub.Embed(photos(1)))
    assert full.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(full) == "QUEUE_FULL"
    assert details_of(full)["google.rpc.RetryInfo"].retry_delay.ToMilliseconds() > 0
    await goes_on()
    assert (await waits).embeddings.dimension == 1


async def test_the_work_of_a_caller_who_left_is_never_done(busy):
    served, goes_on = await busy()
    gone = [served.stub.Embed(photos(7, 7, 7)) for _ in range(5)]
    await until(lambda: queue_is(served, 15))
    for call in gone:
        call.cancel()
    await until(lambda: queue_is(served, 0))
    await goes_on()
    await served.stub.Embed(photos(1))
    assert await items_run(served) == 2, "those of the two who stayed"


async def test_a_deadline_ends_the_call_and_its_work(busy):
    served, goes_on = await busy()
    late = await error_of(served.stub.Embed(photos(7), timeout=0.05))
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: queue_is(served, 0))
    await goes_on()
    assert await items_run(served) == 1


async def test_a_deadline_that_ends_a_call_is_not_logged_as_a_caller_who_left(misbehave, caplog):
    began = asyncio.Event()

    async def sleeps(self, request, context):
        began.set()
        await asyncio.sleep(TIMEOUT_S)

    caplog.set_level(logging.INFO)
    stub, timeout_s = await misbehave(sleeps), 0.1
    while not began.is_set():  # on a busy machine the deadline may pass before the call has come
        timeout_s *= 2
        await error_of(stub.Embed(photos(1), timeout=timeout_s))
    assert await logged_code(caplog) == "DEADLINE_EXCEEDED"


async def test_a_servicer_knows_until_when_its_caller_waits(misbehave):
    async def tells(self, request, context):
        until = deadline(context)
        left_s = -1 if until is None else until - time.monotonic()
        return embedder_pb2.EmbedResponse(times=embedder_pb2.EmbedTimes(queue_ms=left_s))

    stub = await misbehave(tells)
    assert 0 < (await stub.Embed(photos(1), timeout=TIMEOUT_S)).times.queue_ms < TIMEOUT_S + 0.1
    assert (await stub.Embed(photos(1))).times.queue_ms == -1


@pytest.mark.parametrize("sent", [None, "Bearer wrong", "s3cret", "Bearer ", "Bearer s3cret "], ids=repr)
async def test_without_the_token_nobody_gets_in(serve, token_file, sent):
    stub = (await serve(token_file=token_file)).stub
    metadata = () if sent is None else (("authorization", sent),)
    error = await error_of(stub.Embed(photos(1), metadata=metadata))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_without_the_token_not_even_the_message_is_read(serve, silent, token_file):
    channel = (await serve(token_file=token_file)).channel
    assert reason_of(await error_of(silent(channel, timeout=TIMEOUT_S))) == "UNAUTHENTICATED"


async def test_with_the_token_one_does(serve, token_file):
    stub = (await serve(token_file=token_file)).stub
    assert await stub.Embed(photos(1), metadata=(("authorization", "Bearer s3cret"),))


async def test_a_token_without_tls_is_warned_of(serve, token_file, caplog):
    await serve(token_file=token_file)
    assert "tokens travel in the clear, for TLS is off" in caplog.messages


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
async def test_health_needs_no_token_but_reflection_does(serve, token_file, version):
    channel = (await serve(token_file=token_file)).channel
    health = health_pb2_grpc.HealthStub(channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    reflect = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    assert reason_of(await error_of(reflect(iter([question])).read())) == "UNAUTHENTICATED"
    answer = await reflect(iter([question]), metadata=(("authorization", "Bearer s3cret"),)).read()
    assert answer.list_services_response.service


async def test_every_call_is_a_log_line(serve, caplog):
    caplog.set_level(logging.INFO)
    stub = (await serve()).stub
    await stub.Embed(photos(1))
    await error_of(stub.Embed(photos()))
    good, bad = [record for record in caplog.records if record.message == "call"]
    assert (good.method, good.code, good.peer[:5]) == (EMBED, "OK", "ipv4:")
    assert (bad.code, bad.reason) == ("INVALID_ARGUMENT", "INVALID_IMAGE_COUNT")
    assert good.duration_ms >= 1


async def test_calls_are_counted_by_method_status_and_reason(serve):
    served = await serve()
    await served.stub.Embed(photos(1, 2))
    await error_of(served.stub.Embed(photos()))
    registry = served.server.metrics.registry
    labels = {"grpc_service": "vmmr.embedder.v1.EmbedderService", "grpc_method": "Embed"}
    assert registry.get_sample_value("grpc_server_handled_total", {**labels, "grpc_code": "OK"}) == 1
    assert registry.get_sample_value("grpc_server_handled_total", {**labels, "grpc_code": "INVALID_ARGUMENT"}) == 1
    assert registry.get_sample_value("grpc_server_handling_seconds_count", labels) == 2
    assert registry.get_sample_value("vmmr_errors_total", {"reason": "INVALID_IMAGE_COUNT"}) == 1
    assert registry.get_sample_value("vmmr_calls_in_flight") == 0


async def test_a_cancelled_call_is_logged_and_counted_as_such(busy, caplog):
    caplog.set_level(logging.INFO)
    served, goes_on = await busy()
    call = served.stub.Embed(photos(1))
    await until(lambda: queue_is(served, 1))
    call.cancel()

    async def is_logged():
        return any(getattr(record, "code", "") == "CANCELLED" for record in caplog.records)

    await until(is_logged)
    assert served.server.metrics.registry.get_sample_value("vmmr_calls_in_flight") == 1, "the one that is run"
    await goes_on()
