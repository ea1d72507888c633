"""A client in another process, or another event loop, than the one it belongs to."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import vmmr

from tests.conftest import TIMEOUT_S

NOT_SURVIVED = "this client was used by process {}, from which this process, {}, was forked"


def in_fork(services, case) -> dict:
    """What `forking.py` says of a case."""
    script = Path(__file__).with_name("forking.py")
    command = [sys.executable, script, case, *services.targets]
    env = {
        name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"
    }  # as callers have it
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=env)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["fork"].pop("exit code") == 0
    assert said["year"] == 2002, "the parent's client goes on"
    return said


@pytest.mark.parametrize("use", ["identify", "identify_many", "labels", "info", "async"])
def test_a_client_that_was_used_before_the_fork_says_what_to_do(services, use):
    said = in_fork(services, use)
    told = said["fork"]["RuntimeError"]
    assert told.startswith(NOT_SURVIVED.format(said["pid"], said["fork"]["pid"]))
    assert (
        "make a client in each process, and start processes that are to make calls with multiprocessing's 'spawn'"
        in told
    )


def test_closing_it_in_the_fork_neither_hangs_nor_closes_the_parents(services):
    assert in_fork(services, "close")["fork"]["returned"] == "None"


def test_a_client_that_was_not_used_yet_may_be_used_in_the_fork(services):
    assert in_fork(services, "unused")["fork"]["returned"] == "2001"


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
