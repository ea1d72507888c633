from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder_svc.admission import Admission
from svckit.errors import Reason, ServiceError


def test_what_does_not_fit_is_turned_away_whole():
    admission = Admission(4)
    with admission.admit(3):
        with pytest.raises(ServiceError, match="no room for 2 more photos: 3 of 4 are being embedded") as caught:
            admission.admit(2).__enter__()
        with admission.admit(1):
            pass
    assert caught.value.reason == Reason.QUEUE_FULL


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
