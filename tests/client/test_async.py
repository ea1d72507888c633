"""What is particular to the client for asyncio."""

import asyncio
import threading

import pytest
import vmmr


async def test_identifications_run_side_by_side(services):
    both = threading.Barrier(2, timeout=60)
    services.embedder.script.then(*[lambda *_: both.wait() and None] * 2)
    async with vmmr.AsyncClient(*services.targets) as client:
        first, second = await asyncio.gather(client.identify(b"1"), client.identify(b"2"))
    assert (first.answer.year, second.answer.year) == (2001, 2002)


async def test_a_slow_photo_does_not_block_the_loop(services):
    class Slow:
        def __init__(self):
            self.proceed = threading.Event()

        def read(self, size: int = -1, /) -> bytes:
            assert self.proceed.wait(60)
            return b"1"

    slow = Slow()
    async with vmmr.AsyncClient(*services.targets) as client:
        waiting = asyncio.create_task(client.identify(slow))
        assert (await client.identify(b"2")).answer.year == 2002
        slow.proceed.set()
        assert (await waiting).answer.year == 2001


def stuck(services):
    """Makes the embedder wait over the photo 2222; events that tell when it does and when its caller left, and end it."""
    waits, left, leave = threading.Event(), threading.Event(), threading.Event()

    def behaviour(_, context):
        context.add_callback(left.set)
        waits.set()
        leave.wait(60)

    services.embedder.script.marked[b"2222"] = behaviour
    return waits, left, leave


async def test_cancelling_a_task_cancels_its_call(services):
    waits, left, leave = stuck(services)
    async with vmmr.AsyncClient(*services.targets, timeout_s=60) as client:
        task = asyncio.create_task(client.identify(b"2222"))
        assert await asyncio.to_thread(waits.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(left.wait, 60)
    leave.set()


async def test_closing_the_client_is_an_error_of_calls_and_not_a_cancellation_of_tasks(services):
    waits, _, leave = stuck(services)
    client = vmmr.AsyncClient(*services.targets, timeout_s=60)
    task = asyncio.create_task(client.identify(b"2222"))
    assert await asyncio.to_thread(waits.wait, 60)
    await client.close()
    with pytest.raises(vmmr.CallError, match="the client was closed during the call") as caught:
        await task
    assert caught.value.status == "CANCELLED"
    leave.set()


def test_a_client_may_be_made_before_there_is_a_loop(services):
    client = vmmr.AsyncClient(*services.targets)

    async def use():
        async with client:
            return await client.identify(b"1")

    assert asyncio.run(use()).answer.year == 2001


async def test_who_stops_listening_cancels_what_is_under_way(services):
    waits, left, leave = stuck(services)
    async with vmmr.AsyncClient(*services.targets, timeout_s=60) as client:
        outcomes = client.identify_many([b"1111", b"2222"], batch=1)
        await anext(outcomes)
        assert await asyncio.to_thread(waits.wait, 60)
        await outcomes.aclose()
        assert await asyncio.to_thread(left.wait, 60)
    leave.set()


async def test_a_request_id_of_the_callers_goes_with_all_calls_of_its_task_alone(services):
    async def identify(client, request_id):
        with vmmr.request_id(request_id):
            found = await client.identify(b"1")
            outcomes = [outcome async for outcome in client.identify_many([b"2"])]
        return {found.request_id, *(outcome.identification.request_id for outcome in outcomes)}

    async with vmmr.AsyncClient(*services.targets) as client:
        ours = await asyncio.gather(identify(client, "one"), identify(client, "two"))
        after = await client.identify(b"1")
    assert ours == [{"one"}, {"two"}]
    calls = services.embedder.script.of("Embed") + services.search.script.of("Classify")
    assert {call.metadata["x-request-id"] for call in calls} == {"one", "two", after.request_id}


@pytest.mark.parametrize("bad", ["", "a" * 129, "caf\u00e9", "a\nb"])
def test_a_request_id_that_the_services_would_not_take_is_refused(bad):
    with pytest.raises(ValueError, match="1 to 128 printable ASCII"), vmmr.request_id(bad):
        pass
