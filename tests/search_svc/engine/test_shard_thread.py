import threading
import time
from concurrent.futures import CancelledError

import pytest

from search_svc.engine.shard_thread import MOST_ABANDONED, ShardThread

TIMEOUT_S = 60


class Stuck:
    """Work that has begun, and runs until it is released."""

    def __init__(self, worker):
        self._began, self._go = threading.Event(), threading.Event()
        self.thread = None
        self.future = worker.submit(self)

    def __call__(self):
        self.thread = threading.current_thread()
        self._began.set()
        assert self._go.wait(TIMEOUT_S)
        return "late"

    def begun(self):
        assert self._began.wait(TIMEOUT_S)
        return self

    def let_go(self):
        self._go.set()


@pytest.fixture
def prepared():
    """The threads that called `prepare`."""
    return []


@pytest.fixture
def worker(prepared):
    worker = ShardThread("shard-7", lambda: prepared.append(threading.current_thread()))
    yield worker
    worker.close()
    for thread in prepared:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


@pytest.fixture
def stick(worker):
    """Give the worker work that does not end until the test ends, or releases it."""
    stuck = []

    def stick():
        stuck.append(Stuck(worker))
        return stuck[-1]

    yield stick
    for each in stuck:
        each.let_go()


def abandoned(worker, stick, times=1):
    """Works that did not end, and that the worker abandoned."""
    works = []
    for _ in range(times):
        works.append(stick().begun())
        assert worker.abandon(works[-1].future)
    return works


def test_tasks_are_done_one_after_the_other_in_one_thread_that_was_prepared(worker, prepared):
    threads = [worker.submit(threading.current_thread) for _ in range(5)]
    assert {future.result(TIMEOUT_S) for future in threads} == {prepared[0]}
    assert [thread.name for thread in prepared] == ["shard-7"]


def test_what_a_task_raises_is_raised_where_its_result_is_asked_for(worker):
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 / 0).result(TIMEOUT_S)
    assert worker.submit(lambda: 1).result(TIMEOUT_S) == 1


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), CancelledError()], ids=repr)
def test_whatever_a_task_raises_the_thread_lives(worker, prepared, error):
    def fail():
        raise error

    assert worker.submit(fail).exception(TIMEOUT_S) is error
    assert worker.submit(threading.current_thread).result(TIMEOUT_S) is prepared[0]


def test_a_task_behind_one_that_is_abandoned_is_done_by_another_thread(worker, stick, prepared):
    first = stick().begun()
    behind = worker.submit(threading.current_thread)
    assert worker.abandon(first.future)
    assert behind.result(TIMEOUT_S) is prepared[1]
    assert prepared[1] is not first.thread
    assert worker.abandoned == 1


def test_what_comes_of_an_abandoned_task_is_thrown_away(worker, stick, prepared):
    [late] = abandoned(worker, stick)
    late.let_go()
    late.thread.join(TIMEOUT_S)
    assert not late.thread.is_alive()
    with pytest.raises(CancelledError):
        late.future.result(0)
    assert worker.abandoned == 0
    assert worker.submit(lambda: 1).result(TIMEOUT_S) == 1
    assert len(prepared) == 2


def test_an_abandoned_task_may_fail(worker, prepared):
    began, go = threading.Event(), threading.Event()

    def fail():
        began.set()
        assert go.wait(TIMEOUT_S)
        raise ValueError("nobody hears")

    future = worker.submit(fail)
    assert began.wait(TIMEOUT_S)
    worker.abandon(future)
    go.set()
    prepared[0].join(TIMEOUT_S)
    assert future.cancelled()


def test_a_task_that_has_ended_is_not_abandoned(worker, prepared):
    future = worker.submit(lambda: 1)
    assert future.result(TIMEOUT_S) == 1
    assert not worker.abandon(future)
    assert worker.submit(threading.current_thread).result(TIMEOUT_S) is prepared[0]
    assert (worker.abandoned, len(prepared)) == (0, 1)


def test_a_task_that_is_given_up_before_it_began_costs_no_thread(worker, stick, prepared):
    first = stick().begun()
    done = []
    waiting, last = worker.submit(lambda: done.append("waiting")), worker.submit(lambda: done.append("last"))
    assert worker.abandon(waiting)
    first.let_go()
    assert first.future.result(TIMEOUT_S) == "late"
    last.result(TIMEOUT_S)
    assert done == ["last"]
    assert (worker.abandoned, len(prepared)) == (0, 1)


def test_the_last_task_of_all_may_be_given_up_before_it_began(worker, stick, prepared):
    first = stick().begun()
    assert worker.abandon(worker.submit(lambda: 1))
    first.let_go()
    first.future.result(TIMEOUT_S)
    assert worker.submit(threading.current_thread).result(TIMEOUT_S) is prepared[0]


def test_no_more_threads_are_abandoned_than_a_few_and_then_tasks_fail_at_once(worker, stick, prepared):
    abandoned(worker, stick, MOST_ABANDONED)
    assert worker.submit(lambda: 1).cancelled()
    assert worker.abandoned == len(prepared) == MOST_ABANDONED


def test_who_abandons_twice_or_interrupts_besides_abandons_once(worker, stick):
    [late] = abandoned(worker, stick)
    assert worker.abandon(late.future)
    assert worker.submit(lambda: 1).result(TIMEOUT_S) == 1
    worker.interrupt()
    assert worker.abandoned == 1


def test_as_soon_as_one_of_them_ends_tasks_are_done_again(worker, stick, prepared):
    works = abandoned(worker, stick, MOST_ABANDONED)
    works[2].let_go()
    ends = time.monotonic() + TIMEOUT_S
    while (future := worker.submit(threading.current_thread)).cancelled():
        assert time.monotonic() < ends
    assert future.result(TIMEOUT_S) is works[2].thread
    assert worker.abandoned == MOST_ABANDONED - 1
    abandoned(worker, stick)
    assert worker.submit(lambda: 1).cancelled()
    assert len(prepared) == MOST_ABANDONED


def test_a_task_that_waits_when_the_last_thread_is_abandoned_is_done_by_the_first_that_ends(worker, stick):
    works = abandoned(worker, stick, MOST_ABANDONED - 1)
    last = stick().begun()
    behind = worker.submit(threading.current_thread)
    assert worker.abandon(last.future)
    works[0].let_go()
    assert behind.result(TIMEOUT_S) is works[0].thread


def test_closing_waits_for_the_task_that_has_begun_and_cancels_the_others(worker, stick, prepared):
    first = stick().begun()
    waiting = worker.submit(lambda: 1)
    closing = threading.Thread(target=worker.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(TIMEOUT_S)
    assert closing.is_alive()
    first.let_go()
    closing.join(TIMEOUT_S)
    assert first.future.result(0) == "late"
    assert not prepared[0].is_alive()
    assert worker.submit(lambda: 1).cancelled()


def test_closing_does_not_wait_for_those_that_are_abandoned(worker, stick, prepared):
    [late] = abandoned(worker, stick)
    worker.submit(lambda: 1).result(TIMEOUT_S)
    worker.close()
    assert [thread.is_alive() for thread in prepared] == [True, False]
    late.let_go()
    late.thread.join(TIMEOUT_S)
    assert worker.abandoned == 0


def test_interrupting_frees_all_who_wait_and_then_closing_waits_for_nothing(worker, stick):
    first = stick().begun()
    waiting = worker.submit(lambda: 1)
    worker.interrupt()
    for future in (first.future, waiting):
        with pytest.raises(CancelledError):
            future.result(TIMEOUT_S)
    assert worker.abandoned == 1
    worker.close()
    worker.interrupt()
    assert worker.submit(lambda: 1).cancelled()
    assert first.thread.is_alive()


def test_interrupting_one_that_has_nothing_to_do_abandons_nothing(worker, prepared):
    worker.submit(lambda: 1).result(TIMEOUT_S)
    worker.interrupt()
    worker.close()
    assert worker.abandoned == 0
    assert not prepared[0].is_alive()
