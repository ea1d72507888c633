"""A client in another process, or another event loop, than the one it belongs to."""

import asyncio
import multiprocessing
import os
import threading
import warnings

import pytest
import vmmr

FORK = multiprocessing.get_context("fork")
NOT_SURVIVED = "this client was used by process {}, from which this process, {}, was forked"
USES = {
    "identify": lambda client: client.identify(b"1"),
    "identify_many": lambda client: list(client.identify_many([b"1"])),
    "labels": lambda client: list(client.labels()),
    "info": lambda client: client.info(),
}


def in_fork(use) -> list:
    """What a forked process made of it: its id, and what it returned or raised, in words."""
    ours, theirs = FORK.Pipe()

    def child() -> None:
        try:
            theirs.send(["returned", repr(use())])
        except BaseException as error:  # noqa: BLE001 (whatever it is, the test is to see it)
            theirs.send([type(error).__name__, str(error)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python, too, says that threads and forks do not mix
        process = FORK.Process(target=child)
        process.start()
    try:
        assert ours.poll(30), "the forked process hangs"
        said = ours.recv()
        process.join(30)
        assert process.exitcode == 0, "the forked process hangs at its end, or crashed"
        return [process.pid, *said]
    finally:
        process.kill()
        process.join()


@pytest.fixture
def busy(services):
    """A client that threads are using, all the time."""
    over = threading.Event()
    with vmmr.Client(*services.targets) as client:
        client.info()

        def use() -> None:
            while not over.is_set():
                client.model_info()

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        yield client
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_client_that_was_used_before_the_fork_says_what_to_do(busy, use):
    pid, kind, said = in_fork(lambda: use(busy))
    assert kind == "RuntimeError"
    assert said.startswith(NOT_SURVIVED.format(os.getpid(), pid))
    assert (
        "make a client in each process, and start processes that are to make calls with multiprocessing's 'spawn'"
        in said
    )
    assert busy.model_info().name == "fake-int8", "the parent's goes on"


def test_closing_it_in_the_fork_neither_hangs_nor_closes_the_parents(busy):
    assert in_fork(busy.close)[1:] == ["returned", "None"]
    assert busy.model_info().name == "fake-int8"


def test_an_async_client_says_so_too(services):
    client = vmmr.AsyncClient(*services.targets)

    async def use() -> str:
        await client.info()
        return in_fork(lambda: asyncio.run(client.info()))

    pid, kind, said = asyncio.run(use())
    assert kind == "RuntimeError"
    assert said.startswith(NOT_SURVIVED.format(os.getpid(), pid))


def test_a_client_that_was_not_used_yet_may_be_used_in_the_fork(services):
    with vmmr.Client(*services.targets) as client:
        _, kind, said = in_fork(lambda: client.identify(b"1").answer.year)
        assert (kind, said) == ("returned", "2001")
        assert client.identify(b"2").answer.year == 2002


# --- event loops ---

ASYNC_USES = {
    "identify": lambda client: client.identify(b"1"),
    "info": lambda client: client.info(),
    "identify_many": lambda client: anext(client.identify_many([b"1"])),
    "labels": lambda client: anext(client.labels()),
}


@pytest.mark.parametrize("use", ASYNC_USES.values(), ids=ASYNC_USES)
def test_an_async_client_in_a_second_loop_names_the_class_and_the_rule(services, use):
    client = vmmr.AsyncClient(*services.targets)

    async def first() -> None:
        await client.info()

    async def second() -> None:
        async with client:
            await use(client)

    asyncio.run(first())
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(second())
    assert str(caught.value) == (
        "this AsyncClient belongs to the event loop that it was first used in, and this is another: make an AsyncClient in each "
        "loop, that is in each asyncio.run(), or use vmmr.Client, which any thread may use"
    )


def test_one_that_is_used_in_two_loops_at_once_is_not_closed_by_the_other(services):
    client = vmmr.AsyncClient(*services.targets)

    async def first() -> int:
        await client.info()
        with pytest.raises(RuntimeError, match="this AsyncClient belongs to the event loop"):
            await asyncio.to_thread(asyncio.run, client.close())
        found = await client.identify(b"1")
        await client.close()
        return found.answer.year

    assert asyncio.run(first()) == 2001


def test_one_whose_loop_has_ended_can_be_closed(services):
    client = vmmr.AsyncClient(*services.targets)

    async def use() -> None:
        await client.info()

    asyncio.run(use())
    asyncio.run(client.close())
    with pytest.raises(RuntimeError, match="this client is closed"):
        asyncio.run(use())
