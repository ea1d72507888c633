import math

import pytest

from svckit.pace import Pace


def paced(longest_s=lambda: 1.0, *, owners=("shop", "garage"), batches=((4, 0.8),)):
    pace = Pace(16, longest_s)
    for owner in owners:
        pace.came(owner, 100.0)
    for _ in range(100):
        for items, run_s in batches:
            pace.ran(items, run_s)
    return pace


@pytest.mark.parametrize(
    ("longest_s", "room"), [(0.0, 1), (0.1, 1), (0.21, 1), (0.41, 2), (1.01, 5), (100.0, 16), (math.inf, 16)]
)
def test_a_batch_has_as_many_items_as_run_in_that_time(longest_s, room):
    assert paced(lambda: longest_s).room(100.0) == room


def test_the_time_may_change_from_batch_to_batch():
    seconds = iter([0.41, 1.01])
    pace = paced(lambda: next(seconds))
    assert [pace.room(100.0), pace.room(100.0)] == [2, 5]


@pytest.mark.parametrize("owners", [[], ["shop"], ["shop", "shop"]])
def test_one_caller_gets_full_batches(owners):
    assert paced(owners=owners).room(100.0) == 16


def test_so_do_all_if_nothing_is_said():
    assert paced(None).room(100.0) == 16


def test_and_whoever_is_left_some_seconds_after_the_others_went():
    pace = paced()
    pace.came("garage", 109.0)
    assert [pace.room(109.9), pace.room(110.0)] == [5, 16]
    pace.came("shop", 111.0)
    assert pace.room(111.0) == 5


def test_the_first_batch_is_full_for_nothing_is_known():
    assert paced(batches=()).room(100.0) == 16


def test_what_runs_slower_makes_the_next_batches_smaller_and_what_runs_faster_larger():
    pace, rooms = paced(), []
    for run_s in (8.0, 0.8, 0.8, 0.8, 0.8, 0.8):
        pace.ran(4, run_s)
        rooms.append(pace.room(100.0))
    assert rooms == [1, 2, 2, 2, 2, 3]


def test_how_long_a_queue_takes_is_told_by_its_items_in_whatever_batches_they_run():
    assert paced(None).wait_s(30, 1) == pytest.approx(6.0)
    assert paced(lambda: 0.5).wait_s(30, 2) == pytest.approx(3.0)
    assert paced(batches=()).wait_s(30, 1) > 0
