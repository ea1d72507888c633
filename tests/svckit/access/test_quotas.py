"""Rates, calls at once and sizes, by a clock of the test's own."""

import math
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svckit.access import quotas
from svckit.access.callers import Caller, Limits, Role
from svckit.access.quotas import Bucket, Quotas, Spent
from svckit.errors import Reason, ServiceError


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def caller(name="shop", **limits):
    return Caller(name, Role.QUERY, limits=Limits(**limits))


def call(held: Quotas, who: Caller):
    with held.call(who, Spent()):
        pass


def refused(quota):
    def check(error):
        return (error.reason, error.metadata["quota"]) == (Reason.QUOTA_EXCEEDED, quota)

    return pytest.raises(ServiceError, check=check)


@given(
    rate=st.floats(0.1, 1000),
    calls=st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 100)), min_size=1, max_size=60),
    capacity=st.floats(1, 1000),
)
def test_no_more_comes_through_than_flows_in_and_one_full_bucket_and_one_call(rate, calls, capacity):
    clock = Clock()
    bucket, taken = Bucket(rate, capacity, clock), 0.0
    for pause_s, cost in calls:
        clock.now += pause_s
        wait_s = bucket.take(cost)
        taken += 0 if wait_s else cost
        assert taken <= rate * clock.now + capacity + max(cost for _, cost in calls) + 1e-6


@given(rate=st.floats(0.1, 1000), costs=st.lists(st.floats(0.1, 500), min_size=1, max_size=30))
def test_whoever_waits_as_long_as_is_said_gets_through(rate, costs):
    clock = Clock()
    bucket = Bucket(rate, rate, clock)
    for cost in costs:
        wait_s = bucket.take(cost)
        if wait_s:
            clock.now += math.ceil(1e3 * wait_s) / 1e3
            assert not bucket.take(cost)


@pytest.mark.parametrize(("rate", "at_once"), [(10, 2), (20, 3), (50, 6)])
def test_requests_are_one_and_a_tenth_of_a_second_s_worth_at_once_and_then_as_they_flow(clock, rate, at_once):
    held, shop = Quotas(clock), caller(requests_per_s=rate)
    for _ in range(at_once):
        call(held, shop)
    with refused("requests_per_s") as caught:
        call(held, shop)
    assert caught.value.retry_after_s == math.ceil(1000 / rate) / 1000
    clock.now += 1 / rate
    call(held, shop)
    with refused("requests_per_s"):
        call(held, shop)


def test_what_is_refused_is_not_counted(clock):
    held, shop = Quotas(clock), caller(requests_per_s=1)
    call(held, shop)
    for _ in range(100):
        with refused("requests_per_s"):
            call(held, shop)
    clock.now += 1
    call(held, shop)


def test_a_call_of_more_photos_than_a_bucket_holds_comes_through_and_is_paid_for(clock):
    held, shop = Quotas(clock), caller(photos_per_s=10)
    held.check(shop, Spent(), photos=32, k=0)
    with refused("photos_per_s") as caught:
        held.check(shop, Spent(), photos=1, k=0)
    assert caught.value.retry_after_s == 3.1
    clock.now += 3.1
    held.check(shop, Spent(), photos=1, k=0)


@pytest.mark.parametrize("reason", [Reason.QUEUE_FULL, Reason.NOT_READY, Reason.SHUTTING_DOWN])
def test_a_call_for_which_there_was_no_room_costs_nothing(clock, reason):
    held, shop = Quotas(clock), caller(requests_per_s=1, photos_per_s=10)
    for _ in range(5):
        spent = Spent()
        held.check(shop, spent, photos=256, k=0)
        with pytest.raises(ServiceError), held.call(shop, spent):
            raise ServiceError(reason, "no room")
    with held.call(shop, Spent()):
        held.check(shop, Spent(), photos=1, k=0)


def test_a_call_whose_photos_are_too_many_costs_no_request(clock):
    held, shop = Quotas(clock), caller(requests_per_s=1, photos_per_s=1)
    held.check(shop, Spent(), photos=1, k=0)
    with refused("photos_per_s"), held.call(shop, spent := Spent()):
        held.check(shop, spent, photos=1, k=0)
    call(held, shop)


def test_a_call_that_was_wrong_is_counted(clock):
    held, shop = Quotas(clock), caller(requests_per_s=1)
    with pytest.raises(ServiceError), held.call(shop, Spent()):
        raise ServiceError(Reason.INVALID_IMAGE, "no photo")
    with refused("requests_per_s"):
        call(held, shop)


def test_calls_without_photos_cost_none(clock):
    held, shop = Quotas(clock), caller(photos_per_s=1)
    held.check(shop, Spent(), photos=5, k=0)
    held.check(shop, Spent(), photos=0, k=0)


def test_calls_at_once_are_counted_until_they_end(clock):
    held, shop = Quotas(clock), caller(concurrent_calls=2)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(held.call(shop, Spent()))
        with refused("concurrent_calls") as caught:
            call(held, shop)
        assert caught.value.retry_after_s == 0.1
        call(held, caller("another", concurrent_calls=2))
    call(held, shop)


@pytest.mark.parametrize(
    ("quota", "asked"), [("photos_per_call", {"photos": 3, "k": 0}), ("max_k", {"photos": 1, "k": 3})]
)
def test_one_call_that_is_too_large_is_refused_for_good(clock, quota, asked):
    held = Quotas(clock)
    with refused(quota) as caught:
        held.check(caller(**{quota: 2}), Spent(), **asked)
    assert caught.value.retry_after_s is None, "waiting does not make it smaller"
    held.check(caller(**{quota: 3}), Spent(), **asked)


def test_new_limits_hold_at_once_and_calls_inside_still_count(clock):
    held = Quotas(clock)
    with held.call(caller(concurrent_calls=5), Spent()), refused("concurrent_calls"):
        call(held, caller(concurrent_calls=1))
    call(held, caller(concurrent_calls=1))
    with refused("requests_per_s"):
        for _ in range(2):
            call(held, caller(requests_per_s=1))


def test_callers_without_limits_are_held_to_none(clock):
    held = Quotas(clock)
    for _ in range(1000):
        call(held, caller())
        held.check(caller(), Spent(), photos=10_000, k=10_000)


def strangers(names, **limits):
    return [Caller(f"jwt:{name}", Role.QUERY, limits=Limits(**limits), listed=False) for name in names]


@pytest.fixture
def few(monkeypatch):
    """Two callers are remembered, and two are looked at."""
    monkeypatch.setattr(quotas, "_MOST_CALLERS", 2)
    monkeypatch.setattr(quotas, "_LOOKED_AT", 2)


def test_callers_who_have_nothing_in_use_are_forgotten_the_one_longest_unheard_of_first(clock, few):
    held = Quotas(clock)
    a, b, c = strangers("abc", requests_per_s=5)
    for each in (a, b, a):
        call(held, each)
        clock.now += 1
    call(held, c)
    assert list(held._usages) == ["jwt:a", "jwt:c"]


@pytest.mark.parametrize("use", ["requests", "photos"])
def test_however_many_others_come_nobody_is_given_a_full_bucket_again(clock, few, use):
    held = Quotas(clock)
    shop, *others = strangers(["shop", *range(50)], requests_per_s=1, photos_per_s=1)

    def take(who):
        with held.call(who, Spent()):
            held.check(who, Spent(), photos=1, k=0)

    if use == "photos":
        held.check(shop, Spent(), photos=10, k=0)
        clock.now += 2
    else:
        call(held, shop)
    for other in others:
        with suppress(ServiceError):
            take(other)
    with refused(f"{use}_per_s"):
        take(shop)


def test_a_call_being_served_is_counted_however_many_others_come(clock, few):
    held = Quotas(clock)
    shop, *others = strangers(["shop", *range(50)], concurrent_calls=1)
    with held.call(shop, Spent()):
        for other in others:
            call(held, other)
        with refused("concurrent_calls"):
            call(held, shop)


def test_where_all_that_are_remembered_use_their_share_a_stranger_waits_and_a_listed_caller_does_not(clock, few):
    held = Quotas(clock)
    for each in strangers("ab", requests_per_s=1):
        call(held, each)
    (c,) = strangers("c", requests_per_s=1)
    with refused("callers") as caught:
        call(held, c)
    assert caught.value.retry_after_s == 0.1
    call(held, caller(requests_per_s=1))
    with refused("requests_per_s"):
        call(held, caller(requests_per_s=1))
    clock.now += 1
    call(held, c)


def test_debtors_who_were_looked_at_keep_no_idle_caller_remembered(clock, monkeypatch):
    monkeypatch.setattr(quotas, "_MOST_CALLERS", 3)
    monkeypatch.setattr(quotas, "_LOOKED_AT", 1)
    held = Quotas(clock)
    a, b, c, d = strangers("abcd", photos_per_s=1)
    for each in (a, b):
        held.check(each, Spent(), photos=100, k=0)
    held.check(c, Spent(), photos=0, k=0)
    for _ in range(2):
        with refused("callers"):
            call(held, d)
    call(held, d)
