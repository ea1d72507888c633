from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder_svc.serving.admission import Admission
from svckit.access.callers import Caller, Role, current
from svckit.errors import Reason, ServiceError


def test_what_does_not_fit_is_turned_away_whole():
    admission = Admission(4)
    with admission.admit(3):
        with pytest.raises(ServiceError, match="no room for 2 more photos: 3 of 4 are being embedded") as caught:
            admission.admit(2).__enter__()
        with admission.admit(1):
            pass
    assert caught.value.reason == Reason.QUEUE_FULL


@contextmanager
def caller(name):
    token = current.set(Caller(name, Role.QUERY))
    try:
        yield
    finally:
        current.reset(token)


def test_what_one_caller_fills_has_room_for_another():
    admission = Admission(8)
    with caller("greedy"), admission.admit(8):
        with pytest.raises(ServiceError):
            admission.check(1, None)
        with caller("other"):
            with pytest.raises(ServiceError, match="no room for 3 more photos: 8 of 10 are being embedded"):
                admission.check(3, None)
            with admission.admit(1), admission.admit(1), pytest.raises(ServiceError, match="10 of 10"):
                admission.check(1, None)
            with admission.admit(2), pytest.raises(ServiceError, match="10 of 8"):
                admission.check(3, None)
    with caller("other"), pytest.raises(ServiceError):
        admission.check(9, None)


def test_a_caller_waits_for_the_photos_that_come_before_its_own_by_turns(clock, paced):
    with caller("greedy"), paced.admit(50):
        with pytest.raises(ServiceError, match=r"too late for 1 more photos: with the 50 before them"):
            paced.check(1, clock.now + 60)
        with caller("other"):
            paced.check(1, clock.now + 2)
            with (
                paced.admit(4),
                pytest.raises(ServiceError, match=r"too late for 2 more photos: with the 10 before them .* 6\.00 s"),
            ):
                paced.check(2, clock.now + 7)


def test_the_caller_is_told_when_to_try_again():
    admission = Admission(1)
    with admission.admit(1), pytest.raises(ServiceError) as caught:
        admission.admit(1).__enter__()
    assert caught.value.retry_after_s > 0


def test_calls_that_fail_at_once_do_not_make_the_others_come_back_sooner():
    admission = Admission(1)

    def told():
        with admission.admit(1), pytest.raises(ServiceError) as caught:
            admission.admit(1).__enter__()
        return caught.value.retry_after_s

    before = told()
    for _ in range(50):
        with suppress(ZeroDivisionError), admission.admit(1):
            raise ZeroDivisionError
    assert told() > before / 2


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def paced(clock):
    """An admission that has seen twenty photos, half a second apart."""
    admission = Admission(100, clock)
    for _ in range(20):
        with admission.admit(1):
            clock.now += 0.5
    return admission


def test_a_call_that_would_be_too_late_is_turned_away(paced, clock):
    with paced.admit(7):
        with pytest.raises(
            ServiceError, match=r"too late for 2 more photos: with the 7 before them they take about 4\.50 s"
        ):
            paced.check(2, clock.now + 5)
        paced.check(1, clock.now + 11)
        paced.check(50, None)


def test_no_call_waits_for_more_than_a_third_of_its_time(paced, clock):
    with paced.admit(4):
        paced.check(1, clock.now + 6.1)
        with pytest.raises(
            ServiceError, match=r"about 2\.50 s, and the deadline is in 5\.90 s, a third of which may pass"
        ):
            paced.check(1, clock.now + 5.9)


def test_with_nothing_inside_there_is_always_time(paced, clock):
    paced.check(5, clock.now + 0.1)


def test_photos_that_are_answered_side_by_side_count_as_many(clock):
    admission = Admission(100, clock)
    for _ in range(20):
        with admission.admit(4):
            clock.now += 1.0
    with admission.admit(1):
        admission.check(9, clock.now + 3.5)
        with pytest.raises(ServiceError, match=r"about 2\.75 s"):
            admission.check(10, clock.now + 3.5)


def test_time_without_work_is_not_taken_for_slowness(paced, clock):
    clock.now += 1000
    with paced.admit(1):
        clock.now += 0.5
    with paced.admit(7):
        paced.check(1, clock.now + 11)


def test_photos_that_cannot_be_used_are_not_taken_for_slowness(paced, clock):
    """There was always one of them inside."""
    bad = paced.admit(1)
    bad.__enter__()
    for _ in range(1000):
        clock.now += 1
        following = paced.admit(1)
        following.__enter__()
        with suppress(ZeroDivisionError):
            bad.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        bad = following
    with paced.admit(1):
        clock.now += 0.5
    with paced.admit(6):
        paced.check(1, clock.now + 11)


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=20))
def test_room_comes_back_however_a_call_ends(calls):
    admission = Admission(5)
    for photos, fails in calls:
        try:
            with admission.admit(photos):
                assert not fails
        except AssertionError:
            pass
    with admission.admit(5):
        pass
