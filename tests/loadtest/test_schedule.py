"""When calls start: pure, so tested as functions."""

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.schedule import arrivals, share

KINDS = st.sampled_from(["uniform", "poisson"])
RATES = st.floats(0.1, 2000)
SECONDS = st.floats(0.01, 3)


@given(RATES, SECONDS, KINDS, st.integers(0, 9))
def test_arrivals_ascend_within_the_time_and_are_always_the_same(rate, seconds, kind, seed):
    found = list(arrivals(rate, seconds, kind, seed))
    assert all(0 <= at < seconds for at in found)
    assert all(before <= after for before, after in pairwise(found))
    assert found == list(arrivals(rate, seconds, kind, seed))


@given(RATES, SECONDS)
def test_uniform_arrivals_are_equally_far_apart_and_as_many_as_the_rate_says(rate, seconds):
    found = list(arrivals(rate, seconds, "uniform", 0))
    assert abs(len(found) - rate * seconds) <= 1
    assert [after - before for before, after in pairwise(found)] == pytest.approx([1 / rate] * (len(found) - 1))


def test_poisson_arrivals_have_the_rate_and_gaps_as_varied_as_independent_callers_have():
    found = list(arrivals(1000, 100, "poisson", 3))
    gaps = [after - before for before, after in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert len(found) == pytest.approx(100_000, rel=0.02)
    assert spread == pytest.approx(mean, rel=0.02), "an exponential distribution's is its mean"


def test_another_seed_is_another_schedule():
    assert list(arrivals(50, 1, "poisson", 1)) != list(arrivals(50, 1, "poisson", 2))


@given(RATES, SECONDS, KINDS, st.integers(1, 5), st.integers(0, 500))
def test_processes_share_one_schedule_and_its_first_calls_alone(rate, seconds, kind, processes, most):
    whole = list(islice(arrivals(rate, seconds, kind, 1), most))
    parts = [list(share(arrivals(rate, seconds, kind, 1), each, processes, most)) for each in range(processes)]
    assert sorted(call for part in parts for call in part) == list(enumerate(whole))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
