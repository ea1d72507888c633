from contextlib import ExitStack

import pytest

from svckit.errors import Reason, ServiceError
from svckit.places import Places


def test_no_connection_has_more_than_its_part_and_all_together_no_more_than_there_are():
    places = Places(per_connection=2, in_all=3)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(places.taken_by("one"))
        with (
            pytest.raises(ServiceError, match=r"^this connection has 2 streams open") as caught,
            places.taken_by("one"),
        ):
            pass
        assert (caught.value.reason, caught.value.status.name) == (Reason.TOO_MANY_STREAMS, "RESOURCE_EXHAUSTED")
        assert caught.value.retry_after_s
        held.enter_context(places.taken_by("two"))
        assert places.taken == 3
        with pytest.raises(ServiceError, match=r"^3 streams are open"), places.taken_by("three"):
            pass
    assert places.taken == 0


def test_the_last_quarter_is_for_connections_that_have_none():
    places = Places(per_connection=4, in_all=8)
    with ExitStack() as held:
        for connection in 4 * ["one"] + 2 * ["two"]:
            held.enter_context(places.taken_by(connection))
        said = r"^6 streams are open, 2 of this connection: the last places are for other connections"
        with pytest.raises(ServiceError, match=said), places.taken_by("two"):
            pass
        held.enter_context(places.taken_by("three"))
        held.enter_context(places.taken_by("four"))
        with pytest.raises(ServiceError, match=r"^8 streams are open, as many"), places.taken_by("five"):
            pass


def test_a_stream_that_fails_leaves_its_place():
    places = Places(per_connection=1, in_all=1)
    with pytest.raises(ZeroDivisionError), places.taken_by("one"):
        raise ZeroDivisionError
    with places.taken_by("one"):
        assert places.taken == 1
