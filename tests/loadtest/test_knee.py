"""The search for the knee, against services that are formulas."""

import math

from hypothesis import given
from hypothesis import strategies as st

from loadtest.knee import KNEE, Point, before_knee, border, goals, meets, next_rate

PRECISION, MOST = 0.05, 40


def service(capacity, light_ms=10.0, slo_ms=math.inf, hiccups=()):
    """A queue: latency grows as 1 / (1 - load), and beyond its capacity it answers no more than that."""
    hiccups = list(hiccups)

    def measure(rate):
        load = rate / capacity
        p99 = light_ms / (1 - load) if load < 0.99 else 100 * light_ms
        if hiccups and hiccups.pop(0):
            p99 *= 1000
        return Point(rate, min(1.0, 1 / load), p99, meets_slo=p99 <= slo_ms and load <= 1)

    return measure


def searched(measure, guess, *, slo, most=MOST):
    found = []
    while (rate := next_rate(found, guess, slo=slo, precision=PRECISION, most=most)) is not None:
        found.append(measure(rate))
    return found


@given(st.floats(5, 50_000), st.floats(0.5, 1.6))
def test_the_knee_is_found_however_wrong_the_first_guess_is(capacity, guess):
    points = searched(service(capacity), guess * capacity, slo=False)
    fine, fails_at = border(points, goals(points, slo=False)[0])
    lowest = min(point.p99_ms for point in points)
    true = capacity * (1 - 10 / (KNEE * lowest))
    # Rates have three digits.
    assert 0.99 * fine <= true <= 1.01 * fails_at
    assert fails_at / fine <= 1 + PRECISION + 0.01
    assert len(points) < MOST


@given(st.floats(5, 50_000), st.floats(0.5, 1.6), st.floats(12, 500))
def test_the_highest_rate_that_meets_the_slo_is_found(capacity, guess, slo_ms):
    points = searched(service(capacity, slo_ms=slo_ms), guess * capacity, slo=True)
    fine, fails_at = border(points, meets)
    true = min(capacity * (1 - 10 / slo_ms), 0.99 * capacity)
    assert 0.99 * fine <= true <= 1.02 * fails_at
    assert fails_at / fine <= 1 + PRECISION + 0.01


def test_an_slo_that_no_rate_meets_ends_the_search_without_one():
    points = searched(service(100, slo_ms=5), 100, slo=True)
    assert border(points, meets)[0] is None
    assert len(points) < MOST
    assert min(point.rate for point in points) >= 0.5


@given(st.integers(1, 12), st.lists(st.booleans(), max_size=40))
def test_the_search_is_bounded_whatever_the_service_does(most, hiccups):
    points = searched(service(100, slo_ms=30, hiccups=hiccups), 100, slo=True, most=most)
    assert len(points) <= most
    assert max(point.rate for point in points) <= 100 * 1.25**most


def test_a_rate_that_failed_below_one_that_was_fine_is_tried_again():
    hiccup_at_half = [False, True]
    points = searched(service(100, slo_ms=100, hiccups=hiccup_at_half), 100, slo=True)
    assert [point.rate for point in points].count(50.0) == 2
    assert border(points, meets)[0] > 60


def test_a_rate_whose_calls_go_unanswered_is_beyond_the_knee_however_fast_the_others_are():
    light = Point(10, 1.0, 10.0)
    assert before_knee(light, [light])
    assert not before_knee(Point(20, 0.9, 10.0), [light])
    assert not before_knee(Point(20, 0.0, None), [light])
