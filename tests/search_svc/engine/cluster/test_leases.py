import pytest

from search_svc.engine.cluster.leases import Leases


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def leases(clock):
    return Leases(30.0, clock)


def pass_(clock, leases, seconds):
    """Let time pass, with a look every second."""
    for _ in range(seconds):
        clock.now += 1
        leases.needed()


def test_what_a_front_end_renews_is_needed_until_it_has_been_silent_for_a_lease(clock, leases):
    leases.renew("a", {"v1": 1})
    pass_(clock, leases, 20)
    leases.renew("b", {"v1": 1, "v2": 2})
    pass_(clock, leases, 10)
    assert leases.needed() == {"v1": 1, "v2": 2}
    assert leases.left_s() == {"a": 0.0, "b": 20.0}
    pass_(clock, leases, 1)
    assert leases.left_s() == {"b": 19.0}
    leases.renew("b", {"v2": 2})
    assert leases.needed() == {"v2": 2}
    leases.renew("b", {})
    assert not leases
    assert leases.needed() == {}


def test_no_lease_ends_because_nobody_was_looking(clock, leases):
    leases.renew("a", {"v1": 1})
    clock.now = 3600.0  # the keeper was stopped for an hour
    assert leases.needed() == {"v1": 1}
    pass_(clock, leases, 30)
    assert leases.needed() == {"v1": 1}
    pass_(clock, leases, 1)
    assert not leases, "it has had a whole lease to come back"
