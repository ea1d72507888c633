import asyncio

import pytest

from svckit.errors import Reason, ServiceError
from svckit.gate import Gate

TIMEOUT_S = 10


@pytest.fixture
def gate():
    gate = Gate(max_calls=2)
    gate.opened = True
    return gate


def reason_of(gate: Gate) -> Reason:
    with pytest.raises(ServiceError) as caught, gate.call():
        pass
    return caught.value.reason


def refusal(gate: Gate, connection: str) -> str:
    with pytest.raises(ServiceError) as caught, gate.call(connection):
        pass
    assert caught.value.reason is Reason.QUEUE_FULL
    return str(caught.value)


async def stay(gate: Gate, until: asyncio.Event, connection: str) -> str:
    with gate.call(connection):
        await until.wait()
    return "served"


async def entered(gate: Gate, until: asyncio.Event, connection: str = "") -> asyncio.Task:
    task = asyncio.create_task(stay(gate, until, connection))
    await asyncio.sleep(0)
    return task


async def test_nobody_gets_in_before_it_is_opened():
    assert reason_of(Gate(max_calls=1)) is Reason.NOT_READY


async def test_only_so_many_are_inside_at_once(gate):
    over = asyncio.Event()
    inside = [await entered(gate, over) for _ in range(2)]
    assert gate.calls == 2
    assert reason_of(gate) is Reason.QUEUE_FULL
    over.set()
    await asyncio.gather(*inside)
    assert gate.calls == 0
    with gate.call():
        assert gate.calls == 1


async def test_a_connection_may_have_three_times_as_many_places_as_are_free():
    gate = Gate(max_calls=32)
    gate.opened = True
    over, inside = asyncio.Event(), []
    for connection, most in (("one", 24), ("two", 6), ("three", 2)):
        inside += [await entered(gate, over, connection) for _ in range(most)]
        if gate.calls < 32:
            said = f"{gate.calls} calls are inside, {most} of this connection: the places left are for"
            assert refusal(gate, connection).startswith(said)
    assert refusal(gate, "four").startswith("the server is busy with 32 calls")
    over.set()
    assert set(await asyncio.gather(*inside)) == {"served"}
    again = [await entered(gate, asyncio.Event(), connection) for connection in ("one",) * 24 + ("two",)]
    assert gate.calls == 25, "what left is forgotten"
    for task in again:
        task.cancel()


async def test_a_call_that_fails_leaves_too(gate):
    with pytest.raises(ZeroDivisionError), gate.call():
        raise ZeroDivisionError
    assert gate.calls == 0


async def test_a_drain_lets_nobody_in_and_waits_for_those_inside(gate):
    over = asyncio.Event()
    inside = await entered(gate, over)
    drain = asyncio.create_task(gate.drain(TIMEOUT_S))
    await asyncio.sleep(0)
    assert reason_of(gate) is Reason.SHUTTING_DOWN
    assert not drain.done()
    over.set()
    assert await drain is True
    assert await inside == "served"


async def test_a_drain_of_an_empty_gate_needs_no_time(gate):
    assert await gate.drain(0) is True


async def test_who_is_inside_when_the_drain_ends_is_sent_out_with_a_reason(gate):
    inside = await entered(gate, asyncio.Event())
    assert await gate.drain(0.01) is False
    with pytest.raises(ServiceError) as caught:
        await inside
    assert caught.value.reason is Reason.SHUTTING_DOWN


async def test_a_caller_who_leaves_is_not_told_anything(gate):
    inside = await entered(gate, asyncio.Event())
    inside.cancel()
    with pytest.raises(asyncio.CancelledError):
        await inside
