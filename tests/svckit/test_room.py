import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svckit.access.callers import Caller, Role, current
from svckit.room import Room


class Works:
    """Works in a room, which go on until they are told to end."""

    def __init__(self, places: int) -> None:
        self.room = Room(places)
        self.begun: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}

    async def come(self, owner: str, number: int) -> asyncio.Task:
        """A work that has come, and works or waits."""
        task = asyncio.create_task(self._work(owner, number))
        await asyncio.sleep(0)
        return task

    async def _work(self, owner: str, number: int) -> None:
        current.set(Caller(owner, Role.QUERY))
        self.ends[number] = asyncio.Event()
        async with self.room:
            self.begun.append(number)
            await self.ends[number].wait()

    async def end(self, number: int) -> None:
        self.ends[number].set()
        for _ in range(4):
            await asyncio.sleep(0)


async def test_no_more_are_inside_than_there_are_places():
    works = Works(2)
    tasks = [await works.come("shop", number) for number in range(4)]
    assert works.begun == [0, 1]
    await works.end(1)
    assert works.begun == [0, 1, 2]
    for number in (0, 2, 3):
        await works.end(number)
    await asyncio.gather(*tasks)
    assert works.begun == [0, 1, 2, 3]


async def test_who_waits_for_much_waits_behind_its_own():
    works = Works(1)
    owners = ["greedy", *["greedy"] * 3, "other", "third"]
    tasks = [await works.come(owner, number) for number, owner in enumerate(owners)]
    for number in (0, 1, 4, 5, 2, 3):
        assert works.begun[-1] == number
        await works.end(number)
    await asyncio.gather(*tasks)


async def test_a_place_that_is_given_to_one_who_leaves_at_that_moment_goes_to_the_next():
    works = Works(1)
    tasks = [await works.come("shop", number) for number in range(3)]
    works.ends[0].set()
    await asyncio.sleep(0)  # the place is given to 1, which has not gone on yet
    tasks[1].cancel()
    for _ in range(4):
        await asyncio.sleep(0)
    assert works.begun == [0, 2]
    await works.end(2)
    await asyncio.wait(tasks)
    async with asyncio.timeout(60), works.room:
        pass


@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12), st.randoms())
def test_whoever_stays_gets_in_and_every_place_is_free_in_the_end(places, owners, random):
    async def scenario():
        works = Works(places)
        tasks = {number: await works.come(owner, number) for number, (owner, _) in enumerate(owners)}
        for number, (_, leaves) in random.sample(list(enumerate(owners)), len(owners)):
            if leaves:
                tasks[number].cancel()
            else:
                works.ends[number].set()
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            async with works.room:
                pass
        return works

    works = asyncio.run(scenario())
    assert {number for number, (_, leaves) in enumerate(owners) if not leaves} <= set(works.begun)
    assert works.room.free == places


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_a_place_comes_back_however_the_work_ends(error):
    room = Room(1)
    for _ in range(3):
        with pytest.raises(error):
            async with asyncio.timeout(60), room:
                raise error
