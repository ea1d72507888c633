"""A worker's place, with real processes in it."""

import asyncio

from svckit.cores import shares
from svckit.server import ServerConfig
from svckit.worker import Main, Ready
from svckit.worker_slot import WorkerSlot

TIMEOUT_S = 30


async def fails_at_length(settings, worker):
    worker.tell(Ready(None))
    raise RuntimeError("much to say" + 1_000_000 * "." + "the end")


async def test_a_worker_that_has_more_to_say_than_a_pipe_holds_ends_all_the_same():
    slot = WorkerSlot(0, shares(1)[0])
    slot.start(Main.of(fails_at_length, "test"), ServerConfig())
    async with asyncio.timeout(TIMEOUT_S):
        assert await slot.ready()
        assert await slot.ended() == "exit code 1"
    assert slot.error.rstrip().endswith("the end")
    slot.kill()
