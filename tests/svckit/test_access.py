"""Whoever calls without a token, or holds much with one, keeps nobody else out. Real servers, real connections."""

import asyncio
import itertools
from contextlib import AsyncExitStack

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
REFLECT_V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
EMBED = "/vmmr.embedder.v1.EmbedderService/Embed"
TOKEN = (("authorization", "Bearer s3cret"),)
PLACES = 16
"""Streams of one connection."""
MANY = 1152
TIMEOUT_S = 60


@pytest.fixture
async def connect():
    """`connect(served)`: a channel with a connection of its own."""
    numbers = itertools.count()
    async with AsyncExitStack() as stack:

        async def connected(served) -> grpc.aio.Channel:
            options = (("grpc.use_local_subchannel_pool", 1), ("vmmr.test.number", next(numbers)))
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{served.server.port}", options=options)
            return await stack.enter_async_context(channel)

        yield connected


def watch(channel, metadata=None):
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), metadata=metadata)


def silent(channel, method, metadata=None):
    """A call or a stream whose message never comes."""
    return channel.stream_stream(method)(metadata=metadata)


def reflection(channel, method=REFLECT):
    request, response = reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
    return channel.stream_stream(method, request.SerializeToString, response.FromString)(metadata=TOKEN)


async def listed(stream) -> list[str]:
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    return [service.name for service in (await stream.read()).list_services_response.service]


async def serves(channel, metadata=TOKEN) -> bool:
    """Whether a call is answered."""
    photo = embedder_pb2.Image(content=b"1")
    stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
    found = await stub.Embed(embedder_pb2.EmbedRequest(images=[photo]), metadata=metadata, timeout=TIMEOUT_S)
    return found.embeddings.dimension == 1


async def healthy(channel) -> bool:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def reason_of(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(error).details)
    return info.reason


async def outcome(call) -> str:
    """The first that is heard of a stream: `answered`, or the reason of its refusal."""
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return "answered"


async def outcomes(calls) -> dict[str, int]:
    found = await asyncio.gather(*(outcome(call) for call in calls))
    return {each: found.count(each) for each in found}


def opened(served, token: str) -> float:
    return served.server.metrics.registry.get_sample_value("vmmr_streams_open", {"token": token})


async def until_open(served, token: str, count: int) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while opened(served, token) != count:  # noqa: ASYNC110 (a gauge has no event)
            await asyncio.sleep(0.001)


async def test_watches_without_a_token_on_one_connection_shut_out_nobody(serve, connect, token_file):
    served = await serve(token_file=token_file)
    watches = [watch(served.channel) for _ in range(MANY)]
    assert await outcomes(watches) == {"answered": PLACES, "TOO_MANY_STREAMS": MANY - PLACES}
    for channel in (served.channel, await connect(served)):
        assert await healthy(channel)
        assert await serves(channel)
        assert await outcome(watch(channel, TOKEN)) == "answered", "whoever has the token has places of their own"
    assert opened(served, "no") == PLACES
    errors = served.server.metrics.registry.get_sample_value("vmmr_errors_total", {"reason": "TOO_MANY_STREAMS"})
    assert errors == MANY - PLACES


async def test_without_a_token_to_send_streams_and_calls_have_places_of_their_own_too(serve, connect):
    served = await serve(max_concurrent_calls=1)
    watches = [watch(served.channel) for _ in range(MANY)]
    assert await outcomes(watches) == {"answered": PLACES, "TOO_MANY_STREAMS": MANY - PLACES}
    for channel in (served.channel, await connect(served)):
        assert await healthy(channel)
        assert await serves(channel, None)


async def test_watches_without_a_token_on_many_connections_shut_out_nobody_who_has_it(
    serve, connect, token_file, monkeypatch
):
    monkeypatch.setattr("svckit.server._MAX_STREAMS", 3 * PLACES)
    served = await serve(token_file=token_file)
    channels = [await connect(served) for _ in range(6)]
    watches, answered = [], []
    for channel in channels:
        watches.append([watch(channel) for _ in range(PLACES)])
        answered.append((await outcomes(watches[-1])).get("answered", 0))
    assert answered == [PLACES, PLACES, PLACES // 4, 1, 1, 1], "the last quarter is for connections that have none"
    fresh = await connect(served)
    assert await outcome(watch(fresh)) == "answered"
    assert await outcome(watch(fresh, TOKEN)) == "answered"
    assert await listed(reflection(fresh))
    assert await healthy(fresh)
    assert await serves(fresh)


@pytest.mark.parametrize("method", [WATCH, REFLECT, REFLECT_V1])
async def test_streams_whose_message_never_comes_have_no_more_places(serve, connect, method, token_file):
    served = await serve(token_file=token_file)
    metadata, token = (None, "no") if method == WATCH else (TOKEN, "yes")
    held = [silent(served.channel, method, metadata) for _ in range(PLACES)]
    await until_open(served, token, PLACES)
    assert await outcome(silent(served.channel, method, metadata)) == "TOO_MANY_STREAMS"
    assert await outcome(watch(await connect(served), metadata)) == "answered", "of another connection"
    assert await serves(served.channel)
    assert not any(call.done() for call in held)


async def test_a_stream_that_ends_leaves_its_place_to_the_next(serve):
    served = await serve()
    watches = [watch(served.channel) for _ in range(PLACES)]
    assert await outcomes(watches) == {"answered": PLACES}
    watches[0].cancel()
    await until_open(served, "no", PLACES - 1)
    assert await outcome(watch(served.channel)) == "answered"


@pytest.mark.parametrize(
    ("method", "limit"),
    [(WATCH, "_RECEIVE_S"), (REFLECT, "_RECEIVE_S"), (REFLECT_V1, "_RECEIVE_S"), (CHECK, "_RECEIVE_ALWAYS_S")],
)
async def test_nothing_waits_for_ever_for_a_message_that_does_not_come(serve, monkeypatch, method, limit):
    monkeypatch.setattr(f"svckit.interceptor.{limit}", 0.01)
    assert await outcome(silent((await serve()).channel, method)) == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("method", [WATCH, REFLECT, REFLECT_V1, CHECK])
async def test_bytes_that_are_no_message_of_a_stream_are_the_callers_mistake(serve, method):
    call = silent((await serve()).channel, method)
    await call.write(b"\xff")
    assert await outcome(call) == "MALFORMED_REQUEST"


@pytest.mark.parametrize("method", [REFLECT, REFLECT_V1])
async def test_reflection_streams_of_one_caller_shut_out_nobody(serve, connect, token_file, method):
    served = await serve(token_file=token_file)
    streams = [reflection(served.channel, (REFLECT, method)[number % 2]) for number in range(PLACES)]
    assert all([await listed(stream) for stream in streams])
    assert await outcome(reflection(served.channel, method)) == "TOO_MANY_STREAMS"
    other = await connect(served)
    assert await listed(reflection(other))
    assert await listed(streams[0]), "those that are open go on"
    assert await serves(served.channel)
    assert await healthy(served.channel)


async def test_a_reflection_stream_without_a_question_ends_well(serve):
    stream = reflection((await serve()).channel)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_calls_without_the_token_hold_no_place_whatever_they_do(serve, connect, token_file):
    served = await serve(token_file=token_file, max_concurrent_calls=1)
    calls = [silent(served.channel, EMBED) for _ in range(MANY)]
    assert await outcomes(calls) == {"UNAUTHENTICATED": MANY}
    assert await serves(served.channel)


async def test_checks_whose_message_never_comes_shut_out_nobody(serve, connect, token_file, monkeypatch):
    monkeypatch.setattr("svckit.interceptor._RECEIVE_ALWAYS_S", 600)
    served = await serve(token_file=token_file)
    held = [silent(served.channel, CHECK) for _ in range(MANY)]
    other = await connect(served)
    assert await healthy(other)
    assert await serves(other)
    assert not any(call.done() for call in held)


async def test_one_connection_leaves_places_to_others_however_many_calls_it_holds(serve, connect):
    served = await serve(max_concurrent_calls=8)
    held = [silent(served.channel, EMBED) for _ in range(6)]
    async with asyncio.timeout(TIMEOUT_S):
        while served.server.metrics.registry.get_sample_value("vmmr_calls_in_flight") < len(held):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert await outcomes([silent(served.channel, EMBED) for _ in range(MANY)]) == {"QUEUE_FULL": MANY}
    for _ in range(2):
        assert await serves(await connect(served), None)
    assert await healthy(served.channel)
    assert not any(call.done() for call in held)
