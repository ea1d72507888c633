"""Photos that wait to be looked at, over a decoder that goes on when it is told to."""

import asyncio
from types import SimpleNamespace

import pytest

from embedder_svc.serving.decoder import Decoder
from embedder_svc.serving.looking import Finder
from svckit.access.callers import Caller, Role, current
from svckit.batcher import Batched


class HeldDecoder:
    threads = 1

    def __init__(self):
        self.opened = []
        self.go = asyncio.Semaphore(0)

    async def run(self, _, content):
        self.opened.append(content)
        await self.go.acquire()
        return None, None


class NoCars:
    async def submit(self, views, *, deadline):
        return Batched([[] for _ in views], 0.0, 0.0)


async def as_caller(name, work):
    current.set(Caller(name, Role.QUERY))
    return await work()


async def test_a_photo_in_which_a_car_is_looked_for_does_not_wait_behind_all_of_another_caller():
    decoder = HeldDecoder()
    finder = Finder(decoder, SimpleNamespace(lanes=1, max_batch=1, info=None), NoCars(), lambda: None)
    greedy = [as_caller("greedy", lambda number=number: finder.find(f"greedy {number}", None)) for number in range(9)]
    tasks = [asyncio.create_task(each) for each in [*greedy, as_caller("other", lambda: finder.find("other", None))]]
    await asyncio.sleep(0)
    assert decoder.opened == [f"greedy {number}" for number in range(4)], "so many are looked at"
    for _ in tasks:
        decoder.go.release()
    await asyncio.gather(*tasks)
    assert decoder.opened.index("other") <= 5


@pytest.fixture
def decoder():
    decoder = Decoder(None, None, threads=1)
    yield decoder
    decoder.close()


async def test_nor_does_a_photo_that_is_decoded(decoder):
    began = []
    tasks = [
        asyncio.create_task(as_caller(name, lambda name=name: decoder.run(began.append, name)))
        for name in [*["greedy"] * 9, "other"]
    ]
    await asyncio.gather(*tasks)
    assert began.index("other") <= 3
