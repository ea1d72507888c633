import asyncio
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svckit.access.callers import Caller, Role, current
from svckit.batcher import Batcher
from svckit.errors import Reason, ServiceError

TIMEOUT_S = 60
POISON = 666


class Backend:
    """Doubles numbers. Each batch waits to be let go, if `held`."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.held = held

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        self.began.release()
        if self.held:
            assert self.go.acquire(timeout=TIMEOUT_S)
        if POISON in items:
            raise ValueError("poison")
        return [2 * item for item in items]

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.began.acquire, timeout=TIMEOUT_S)

    def release(self, batches: int = 1) -> None:
        self.go.release(batches)

    def free(self) -> None:
        self.held = False
        self.go.release()


@pytest.fixture
def backend():
    return Backend(held=True)


@pytest.fixture
async def batcher(backend):
    async with Batcher(backend, max_batch=4, max_queue=8) as batcher:
        yield batcher
        backend.free()


async def occupied(batcher, backend, item: int = 0) -> asyncio.Task:
    """A submit whose batch is running, and stays so until the backend is released."""
    task = asyncio.create_task(batcher.submit([item]))
    await backend.has_begun()
    return task


async def queued(batcher, items, **kwargs) -> asyncio.Task:
    """A submit whose items are in the queue."""
    task = asyncio.create_task(batcher.submit(items, **kwargs))
    await asyncio.sleep(0)
    return task


async def submit_as(batcher, name, *items) -> list:
    """The outputs of items that a caller of this name submits; run it in a task of its own."""
    current.set(Caller(name, Role.QUERY))
    return (await batcher.submit(items)).outputs


async def until(condition) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.001)


async def reason_of(awaitable) -> Reason:
    with pytest.raises(ServiceError) as caught:
        await awaitable
    return caught.value.reason


@settings(max_examples=60, deadline=None)
@given(
    submits=st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=20),
    max_batch=st.integers(1, 7),
    lanes=st.integers(1, 4),
)
def test_every_item_runs_once_in_order_and_every_caller_gets_its_own(submits, max_batch, lanes):
    backend = Backend()

    async def scenario():
        alone = backend if lanes > 1 else None
        async with Batcher(backend, max_batch=max_batch, max_queue=10_000, lanes=lanes, alone=alone) as batcher:
            return await asyncio.gather(*(batcher.submit(items) for items in submits))

    results = asyncio.run(scenario())
    assert [batched.outputs for batched in results] == [[2 * item for item in items] for items in submits]
    expected = [item for items in submits for item in items]
    assert (backend.items if lanes == 1 else sorted(backend.items)) == (expected if lanes == 1 else sorted(expected))
    assert all(1 <= len(batch) <= max_batch for batch in backend.batches)


async def test_a_lone_item_does_not_wait_for_company(batcher, backend):
    task = await occupied(batcher, backend, 5)
    assert backend.batches == [[5]]
    backend.release()
    assert (await task).outputs == [10]


async def test_a_batch_is_what_piled_up_while_the_backend_was_busy(batcher, backend):
    tasks = [await occupied(batcher, backend)]
    tasks += [await queued(batcher, [item]) for item in range(1, 7)]
    backend.free()
    await asyncio.gather(*tasks)
    assert backend.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_submit_may_be_spread_over_batches_and_share_them(batcher, backend):
    first = await occupied(batcher, backend)
    second = await queued(batcher, [1, 2, 3, 4, 5])
    third = await queued(batcher, [6, 7])
    backend.free()
    assert [(await task).outputs for task in (first, second, third)] == [[0], [2, 4, 6, 8, 10], [12, 14]]
    assert backend.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


async def test_the_backend_gets_its_next_batch_without_the_event_loop(batcher, backend):
    tasks = [await occupied(batcher, backend), await queued(batcher, [1])]
    backend.free()
    assert backend.began.acquire(timeout=TIMEOUT_S), "the loop is blocked right here, and yet the second batch began"
    assert backend.batches == [[0], [1]]
    await asyncio.gather(*tasks)


class TestLanes:
    @pytest.fixture
    def alone(self):
        """The backend of batches that run alone."""
        return Backend(held=True)

    @pytest.fixture
    async def lanes(self, backend, alone):
        async with Batcher(backend, alone=alone, lanes=2, max_batch=1, max_queue=8) as batcher:
            yield batcher
            backend.free()
            alone.free()

    async def test_run_at_once(self, backend):
        async with Batcher(backend, lanes=3, max_batch=1, max_queue=8) as batcher:
            task = asyncio.create_task(batcher.submit([1, 2, 3, 4]))
            for _ in range(3):
                await backend.has_begun()
            assert batcher.waiting == 1
            backend.held = False
            backend.release(4)
            assert (await task).outputs == [2, 4, 6, 8]

    async def test_put_outputs_in_order_whichever_lane_is_first(self):
        last_done = threading.Event()

        def run(items):
            assert items == [9] or last_done.wait(TIMEOUT_S)
            if items == [9]:
                last_done.set()
            return items

        async with Batcher(run, lanes=2, max_batch=1, max_queue=8) as batcher:
            assert (await batcher.submit([5, 9])).outputs == [5, 9]

    async def test_time_in_which_two_ran_counts_once(self, backend):
        async with Batcher(backend, lanes=2, max_batch=1, max_queue=8) as batcher:
            began = time.monotonic()
            task = asyncio.create_task(batcher.submit([1, 2]))
            await backend.has_begun()
            await backend.has_begun()
            await asyncio.sleep(0.02)
            backend.release(2)
            batched = await task
        assert 20 <= batched.run_ms <= 1e3 * (time.monotonic() - began)
        assert batched.queue_ms >= 0

    async def test_a_lone_item_has_the_backend_to_itself(self, lanes, backend, alone):
        task = asyncio.create_task(lanes.submit([1]))
        await alone.has_begun()
        next_one = await queued(lanes, [2])
        third = await queued(lanes, [3])
        assert lanes.waiting == 2, "nothing begins beside what runs alone"
        assert backend.batches == []
        alone.free()
        await backend.has_begun()
        await backend.has_begun()
        backend.free()
        backend.release()
        assert [(await each).outputs for each in (task, next_one, third)] == [[2], [4], [6]]
        assert alone.batches == [[1]]

    async def test_as_many_items_as_lanes_share_it(self, lanes, backend, alone):
        task = asyncio.create_task(lanes.submit([1, 2]))
        await backend.has_begun()
        await backend.has_begun()
        backend.free()
        backend.release()
        await task
        assert alone.batches == []

    async def test_few_items_wait_for_those_that_run_and_then_have_it_to_themselves(self, backend, alone):
        """Else two callers on many lanes would keep each other on one lane each for ever."""
        async with Batcher(backend, alone=alone, lanes=8, max_batch=1, max_queue=16) as batcher:
            many = asyncio.create_task(batcher.submit([1, 2, 3, 4]))
            for _ in range(4):
                await backend.has_begun()
            backend.release(3)
            await until(lambda: batcher._running == 1)
            late = await queued(batcher, [5])
            assert not alone.batches
            backend.release()
            await many
            await alone.has_begun()
            alone.free()
            assert (await late).outputs == [10]
        assert backend.items == [1, 2, 3, 4]

    async def test_when_few_become_many_all_lanes_that_are_idle_begin(self, backend, alone):
        async with Batcher(backend, alone=alone, lanes=8, max_batch=1, max_queue=16) as batcher:
            first = asyncio.create_task(batcher.submit([1, 2, 3, 4]))
            for _ in range(4):
                await backend.has_begun()
            backend.release(3)
            await until(lambda: batcher._running == 1)
            tasks = [await queued(batcher, [item]) for item in (5, 6, 7)]
            for _ in range(3):
                await backend.has_begun()
            assert batcher.waiting == 0
            backend.release(4)
            await asyncio.gather(first, *tasks)

    async def test_a_failure_in_one_fails_its_submit_alone_and_the_rest_of_it_is_not_run(self, backend):
        """Once the failure is known; until then another lane may take the next item."""
        other_lane_is_held = threading.Event()

        def run(items):
            if items == [1]:
                assert other_lane_is_held.wait(TIMEOUT_S)
            return backend(items)

        async with Batcher(run, lanes=2, max_batch=1, max_queue=8) as batcher:
            bad = asyncio.create_task(batcher.submit([POISON, 1, 2, 3]))
            await until(lambda: batcher.waiting == 2)
            good = await queued(batcher, [4])
            backend.free()
            with pytest.raises(ValueError, match="poison"):
                await bad
            other_lane_is_held.set()
            assert (await good).outputs == [8]
        assert sorted(backend.items) == [1, 4, POISON]

    async def test_closing_waits_for_all_of_them(self, backend):
        batcher = Batcher(backend, lanes=2, max_batch=1, max_queue=8)
        running = asyncio.create_task(batcher.submit([1, 2]))
        await backend.has_begun()
        await backend.has_begun()
        closing = asyncio.create_task(batcher.close())
        backend.release()
        await until(lambda: sum(lane.is_alive() for lane in batcher._lanes) == 1)
        assert not closing.done()
        backend.release()
        await closing
        assert not any(lane.is_alive() for lane in batcher._lanes)
        assert (await running).outputs == [2, 4]


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(batcher, backend):
    tasks = [await occupied(batcher, backend), await queued(batcher, [1] * 7)]
    with pytest.raises(ServiceError, match="7 of 8 items wait") as caught:
        await batcher.submit([2, 3])
    assert caught.value.reason is Reason.QUEUE_FULL
    assert caught.value.retry_after_s > 0
    assert batcher.waiting == 7, "admitted all or none"
    tasks.append(await queued(batcher, [4]))
    backend.free()
    await asyncio.gather(*tasks)
    assert backend.items == [0] + [1] * 7 + [4]


async def test_a_submit_larger_than_the_queue_is_told_that_waiting_does_not_help(batcher):
    with pytest.raises(ServiceError, match="9 items never fit the queue, which holds 8") as caught:
        await batcher.submit(range(9))
    assert (caught.value.reason, caught.value.retry_after_s) == (Reason.QUEUE_FULL, None)


async def test_what_the_backend_works_on_leaves_room_in_the_queue(batcher, backend):
    first = asyncio.create_task(batcher.submit([0] * 4))
    await backend.has_begun()
    second = await queued(batcher, [1] * 8)
    backend.free()
    assert len((await first).outputs + (await second).outputs) == 12


async def test_a_caller_who_leaves_costs_nothing_and_makes_room_at_once(batcher, backend):
    first = await occupied(batcher, backend)
    gone = await queued(batcher, [1] * 8)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert batcher.waiting == 0
    stays = await queued(batcher, [2] * 8)
    backend.free()
    await asyncio.gather(first, stays)
    assert backend.items == [0] + [2] * 8


async def test_a_caller_who_left_an_instant_ago_is_not_in_the_batch(batcher, backend):
    """The event loop has not run since: the backend's thread itself must see it."""
    first = await occupied(batcher, backend)
    gone, stays = await queued(batcher, [1]), await queued(batcher, [2])
    gone.cancel()
    backend.free()
    assert backend.began.acquire(timeout=TIMEOUT_S)
    assert backend.batches == [[0], [2]]
    await asyncio.gather(first, stays)


async def test_a_caller_who_leaves_during_the_batch_harms_neither_it_nor_the_batcher(batcher, backend):
    first = await occupied(batcher, backend)
    gone, stays = await queued(batcher, [1]), await queued(batcher, [2])
    backend.release()
    await backend.has_begun()
    gone.cancel()
    backend.free()
    await first
    assert (await stays).outputs == [4]
    assert (await batcher.submit([3])).outputs == [6]


async def test_a_caller_who_leaves_during_a_failing_batch_does_not_keep_the_failure_from_the_others(batcher, backend):
    first = await occupied(batcher, backend)
    gone, stays = await queued(batcher, [POISON]), await queued(batcher, [2])
    backend.release()
    await backend.has_begun()
    gone.cancel()
    backend.free()
    await first
    with pytest.raises(ValueError, match="poison"):
        await stays


async def test_a_deadline_is_answered_while_the_backend_is_still_busy_and_costs_nothing(batcher, backend):
    first = await occupied(batcher, backend)
    assert await reason_of(batcher.submit([1], deadline=time.monotonic() + 0.01)) is Reason.DEADLINE_EXCEEDED
    assert batcher.waiting == 0
    backend.free()
    await first
    assert (await batcher.submit([2])).outputs == [4]
    assert backend.batches == [[0], [2]]


async def test_an_expired_item_is_not_in_the_batch_even_if_the_event_loop_has_not_noticed(batcher, backend):
    first = await occupied(batcher, backend)
    deadline = time.monotonic() + 0.05
    late, stays = await queued(batcher, [1], deadline=deadline), await queued(batcher, [2])
    while time.monotonic() <= deadline:  # the loop is blocked
        pass
    backend.free()
    assert backend.began.acquire(timeout=TIMEOUT_S)
    assert backend.batches == [[0], [2]]
    assert await reason_of(late) is Reason.DEADLINE_EXCEEDED
    await asyncio.gather(first, stays)


async def test_a_deadline_during_the_batch_ends_the_wait_of_that_caller_alone(batcher, backend):
    first = await occupied(batcher, backend)
    late, stays = await queued(batcher, [1], deadline=time.monotonic() + 0.2), await queued(batcher, [2])
    backend.release()
    await backend.has_begun()
    assert await reason_of(late) is Reason.DEADLINE_EXCEEDED
    backend.free()
    await first
    assert (await stays).outputs == [4]


async def test_a_deadline_in_the_past_costs_nothing(batcher, backend):
    assert await reason_of(batcher.submit([1], deadline=time.monotonic())) is Reason.DEADLINE_EXCEEDED
    backend.free()
    await batcher.submit([2])
    assert backend.batches == [[2]]


async def test_a_failing_batch_fails_only_itself():
    def halves(items):
        if 0 in items:
            raise ZeroDivisionError("zero")
        return [1 / item for item in items]

    async with Batcher(halves, max_batch=1, max_queue=8) as batcher:
        outcomes = await asyncio.gather(*(batcher.submit([item]) for item in (1, 0, 2)), return_exceptions=True)
    assert [outcomes[0].outputs, outcomes[2].outputs] == [[1], [0.5]]
    assert isinstance(outcomes[1], ZeroDivisionError)


def odd_fail(items):
    return [ValueError(f"{item} is odd") if item % 2 else item for item in items]


async def test_an_output_that_is_an_error_fails_its_caller_and_no_other_of_the_batch():
    batches = []
    go = threading.Event()

    def run(items):
        assert go.wait(TIMEOUT_S)
        batches.append(items)
        return odd_fail(items)

    async with Batcher(run, max_batch=16, max_queue=16) as batcher:
        tasks = [await queued(batcher, items) for items in ([0], [1], [2, 4], [6, 3, 5], [8])]
        go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [item for batch in batches for item in batch] == [0, 1, 2, 4, 6, 3, 5, 8]
    assert len(batches) <= 2, "the first may have been taken alone"
    assert [str(each) if isinstance(each, ValueError) else each.outputs for each in outcomes] == [
        [0],
        "1 is odd",
        [2, 4],
        "3 is odd",
        [8],
    ]


async def test_the_rest_of_a_submit_that_has_an_error_among_its_outputs_is_not_run():
    seen = []

    def run(items):
        seen.extend(items)
        return odd_fail(items)

    async with Batcher(run, max_batch=2, max_queue=8) as batcher:
        with pytest.raises(ValueError, match="1 is odd"):
            await batcher.submit([0, 1, 2, 4, 6])
        assert batcher.waiting == 0
        assert (await batcher.submit([8, 8, 8])).outputs == [8, 8, 8]
    assert seen == [0, 1, 8, 8, 8]


async def test_an_error_among_the_outputs_may_be_of_any_kind():
    async with Batcher(lambda items: [StopIteration()], max_batch=1, max_queue=8) as batcher:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await batcher.submit([1], deadline=time.monotonic() + TIMEOUT_S)


async def test_the_rest_of_a_failed_submit_is_not_run():
    seen = []

    def fails(items):
        seen.extend(items)
        raise ServiceError(Reason.INVALID_K, "no")

    async with Batcher(fails, max_batch=1, max_queue=8) as batcher:
        assert await reason_of(batcher.submit([1, 2, 3])) is Reason.INVALID_K
    assert seen == [1]


@pytest.mark.parametrize(
    "error", [StopIteration(), SystemExit(), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()], ids=repr
)
async def test_whatever_the_backend_raises_reaches_the_caller_and_the_batcher_lives(error):
    def run(items):
        if items == ["bad"]:
            raise error
        return items

    async with Batcher(run, max_batch=1, max_queue=8) as batcher:
        with pytest.raises(RuntimeError, match=type(error).__name__):
            await batcher.submit(["bad"])
        assert (await batcher.submit(["good"])).outputs == ["good"]


async def test_a_timeout_of_the_backend_is_not_taken_for_the_callers_deadline():
    def run(items):
        raise TimeoutError("the device hangs")

    async with Batcher(run, max_batch=1, max_queue=8) as batcher:
        with pytest.raises(TimeoutError, match="the device hangs"):
            await batcher.submit([1], deadline=time.monotonic() + TIMEOUT_S)


@pytest.mark.parametrize("outputs", [[], [1, 2, 3], None], ids=repr)
async def test_as_many_outputs_as_items_or_the_batch_fails(outputs):
    async with Batcher(lambda items: outputs, max_batch=2, max_queue=8) as batcher:
        with pytest.raises((RuntimeError, TypeError)):
            await batcher.submit([1, 2])


async def test_no_items_need_no_backend(batcher, backend):
    assert (await batcher.submit([])).outputs == []
    assert backend.batches == []


async def test_closing_lets_the_running_batch_end_and_fails_what_waits(batcher, backend):
    running = await occupied(batcher, backend, 1)
    waiting = await queued(batcher, [2])
    closing = asyncio.create_task(batcher.close())
    assert await reason_of(waiting) is Reason.SHUTTING_DOWN
    assert not running.done()
    assert await reason_of(batcher.submit([3])) is Reason.SHUTTING_DOWN
    backend.free()
    await closing
    assert (await running).outputs == [2]
    assert backend.batches == [[1]]
    assert batcher.waiting == 0
    await batcher.close()


async def test_times_tell_waiting_from_running_and_add_up(batcher, backend):
    first = await occupied(batcher, backend)
    began = time.monotonic()
    second = await queued(batcher, [1] * 6)
    waiting = time.monotonic()
    await asyncio.sleep(0.01)
    freed = time.monotonic()
    backend.free()
    batched = await second
    ended = time.monotonic()
    assert (await first).run_ms >= 1e3 * (freed - began)
    assert batched.queue_ms >= 1e3 * (freed - waiting)
    assert batched.run_ms > 0
    assert batched.queue_ms + batched.run_ms <= 1e3 * (ended - began) + 1e-6


def test_a_batch_may_outlive_the_event_loop_of_its_callers():
    """It does when a process is interrupted; the thread must end without a complaint."""
    backend = Backend(held=True)
    batcher = Batcher(backend, max_batch=1, max_queue=1)

    async def leaves():
        task = asyncio.create_task(batcher.submit([1]))
        await backend.has_begun()
        task.cancel()

    asyncio.run(leaves())
    backend.free()
    asyncio.run(batcher.close())


@settings(max_examples=25, deadline=None)
@given(
    fates=st.lists(st.sampled_from(["stays", "leaves", "late", "poison"]), min_size=1, max_size=40),
    sizes=st.lists(st.integers(1, 6), min_size=40, max_size=40),
    lanes=st.integers(1, 4),
)
def test_every_caller_hears_something_whatever_becomes_of_the_others(fates, sizes, lanes):
    def run(items):
        time.sleep(0.0005)
        if "poison" in items:
            raise ValueError("poison")
        return items

    async def call(batcher, fate, size):
        task = asyncio.create_task(
            batcher.submit([fate] * size, deadline=time.monotonic() + (0.001 if fate == "late" else TIMEOUT_S))
        )
        if fate == "leaves":
            await asyncio.sleep(0.001)
            task.cancel()
        return await task

    async def scenario():
        async with Batcher(run, max_batch=4, max_queue=30, lanes=lanes, alone=run) as batcher:
            calls = (call(batcher, fate, size) for fate, size in zip(fates, sizes, strict=False))
            async with asyncio.timeout(TIMEOUT_S):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
                last = await batcher.submit(["last"])
        return outcomes, last, batcher.waiting

    outcomes, last, waiting = asyncio.run(scenario())
    assert (last.outputs, waiting) == (["last"], 0)
    for fate, size, outcome in zip(fates, sizes, outcomes, strict=False):
        allowed = (ServiceError, ValueError) if fate != "leaves" else (ServiceError, ValueError, asyncio.CancelledError)
        assert isinstance(outcome, allowed) or outcome.outputs == [fate] * size


async def test_what_was_done_is_not_kept_alive_by_a_batcher_that_waits_for_more():
    class Thing:
        pass

    item = Thing()
    gone = weakref.ref(item)
    async with Batcher(lambda things: [Thing() for _ in things], max_batch=4, max_queue=8) as batcher:
        output = weakref.ref((await batcher.submit([item])).outputs[0])
        del item
        await until(lambda: not (gone() or output()))


async def test_callers_take_turns_however_much_one_of_them_has_sent_before(backend):
    async with Batcher(backend, max_batch=1, max_queue=16) as batcher:
        first = asyncio.create_task(submit_as(batcher, "greedy", 0))
        await backend.has_begun()
        greedy = [asyncio.create_task(submit_as(batcher, "greedy", number, number + 1)) for number in (1, 3, 5)]
        await asyncio.sleep(0)
        assert batcher.waiting == 6
        other = asyncio.create_task(submit_as(batcher, "other", 100, 101))
        await asyncio.sleep(0)
        assert batcher.waiting == 8
        backend.free()
        assert await asyncio.gather(first, *greedy, other) == [[0], [2, 4], [6, 8], [10, 12], [200, 202]]
    assert backend.items[:5] == [0, 1, 100, 2, 101]


async def test_batches_are_short_while_several_callers_come_where_that_is_asked_for(backend):
    async with Batcher(backend, max_batch=4, max_queue=16, longest_s=lambda: 0.0) as batcher:
        first = asyncio.create_task(submit_as(batcher, "greedy", 0))
        await backend.has_begun()
        rest = [asyncio.create_task(submit_as(batcher, name, 1, 2)) for name in ("greedy", "greedy", "other")]
        await asyncio.sleep(0)
        backend.free()
        await asyncio.gather(first, *rest)
    assert [len(batch) for batch in backend.batches] == [1] * 7


async def test_a_queue_that_one_caller_fills_has_room_for_the_share_of_another(backend):
    async with Batcher(backend, max_batch=1, max_queue=8) as batcher:
        first = asyncio.create_task(submit_as(batcher, "greedy", 0))
        await backend.has_begun()
        tasks = [asyncio.create_task(submit_as(batcher, "greedy", number, number)) for number in range(4)]
        await asyncio.sleep(0)
        assert batcher.waiting == 8
        assert await reason_of(submit_as(batcher, "greedy", 1)) == Reason.QUEUE_FULL
        assert await reason_of(submit_as(batcher, "other", 1, 2, 3)) == Reason.QUEUE_FULL, "that is more than ten"
        tasks += [asyncio.create_task(submit_as(batcher, "other", 100)) for _ in range(2)]
        await asyncio.sleep(0)
        assert batcher.waiting == 10
        assert await reason_of(submit_as(batcher, "third", 1)) == Reason.QUEUE_FULL
        backend.free()
        assert await asyncio.gather(first, *tasks) == [[0], *([2 * number] * 2 for number in range(4)), [200], [200]]
    assert backend.items[:3] == [0, 0, 100]


async def test_a_caller_with_nothing_in_the_queue_sends_no_more_at_once_than_the_queue_holds(backend):
    async with Batcher(backend, max_batch=4, max_queue=8) as batcher:
        assert await reason_of(batcher.submit(list(range(9)))) == Reason.QUEUE_FULL
        backend.free()
        assert len((await batcher.submit(list(range(8)))).outputs) == 8
