"""From records to figures, and when the generator is to blame."""

import pickle

import numpy as np
import pytest

from loadtest import measure
from loadtest.failures import Failure
from loadtest.plan import Open, Plan
from loadtest.recorder import Record, histogram, record

PLAN = Plan(target="search", loads=(Open(10),), slo_p99_ms=50)
FULL, BROKEN = Failure("RESOURCE_EXHAUSTED", "QUEUE_FULL", "full"), Failure("INTERNAL", "", "broken")


def recorded(latencies_ms, *, lag_ms=0.1, loop_lag_ms=0.1, cpu=0.2):
    found = Record(window_s=10.0, done=len(latencies_ms), cpu_shares=[cpu])
    for ms in latencies_ms:
        for into, seconds in (
            (found.latency, ms / 1e3),
            (found.lag, lag_ms / 1e3),
            (found.loop_lag, loop_lag_ms / 1e3),
        ):
            record(into, seconds)
    found.within_slo = sum(ms <= 50 for ms in latencies_ms)
    return found


def step(found):
    return measure.step(PLAN, Open(10), found, 0.5)


def test_percentiles_are_those_of_all_calls_to_three_digits():
    latencies = np.random.default_rng(0).lognormal(3, 1, 5000)
    found = step(recorded(latencies)).latency
    for name, percent in (("p50_ms", 50), ("p90_ms", 90), ("p95_ms", 95), ("p99_ms", 99), ("p999_ms", 99.9)):
        assert getattr(found, name) == pytest.approx(sorted(latencies)[round(50 * percent) - 1], rel=2e-3)
    assert found.max_ms == pytest.approx(max(latencies), rel=2e-3)
    assert found.mean_ms == pytest.approx(np.mean(latencies), rel=2e-3)


def test_the_interval_of_the_p99_holds_it_in_nineteen_of_twenty_samples():
    rng, true, within = np.random.default_rng(1), np.exp(3 + 2.3263), 0
    for _ in range(60):
        kept = histogram()
        for ms in rng.lognormal(3, 1, 1000):
            record(kept, ms / 1e3)
        low, high = measure.interval(kept, 0.99)
        within += low <= true <= high
    assert 53 <= within <= 59


def test_what_processes_recorded_adds_up_as_if_one_had_done_it():
    one, other, both = recorded([1, 2, 60]), recorded([3, 700]), recorded([1, 2, 60, 3, 700])
    one.fail(FULL)
    other.fail(FULL)
    other.fail(BROKEN)
    both.fail(FULL)
    both.fail(FULL)
    both.fail(BROKEN)
    one.stage("queue", 0.1)
    other.stage("queue", 0.2)
    other.stage("vote", 0.3)
    both.stage("queue", 0.1)
    both.stage("queue", 0.2)
    both.stage("vote", 0.3)
    both.cpu_shares = [0.2, 0.2]
    total = pickle.loads(pickle.dumps(one))
    total.add(pickle.loads(pickle.dumps(other)))
    assert step(total) == step(both)


def test_the_share_within_the_slo_is_of_all_calls_but_those_that_an_interrupt_cut_short():
    found = recorded([10] * 98)
    found.fail(FULL)
    found.unsent, found.abandoned = 1, 40
    result = step(found)
    assert (result.calls, result.within_slo, result.meets_slo) == (140, 0.98, False)
    found = recorded([10] * 99 + [60])
    assert (step(found).within_slo, step(found).meets_slo) == (0.99, True)


def test_a_generator_that_did_its_part_confesses_nothing():
    assert step(recorded([40] * 100)).generator.limited_by == ()
    assert step(recorded([2] * 100, lag_ms=0.9, loop_lag_ms=0.9)).generator.limited_by == ()


@pytest.mark.parametrize(
    ("settings", "confession"),
    [
        ({"lag_ms": 5}, "calls started late (p99 5.0 ms, of a latency of 40.0 ms)"),
        ({"loop_lag_ms": 5}, "its event loop was late (p99 5.0 ms, of a latency of 40.0 ms)"),
        ({"cpu": 0.95}, "a process of it used 95% of a core"),
    ],
)
def test_a_generator_that_is_late_or_busy_confesses_it(settings, confession):
    assert step(recorded([40] * 100, **settings)).generator.limited_by == (confession,)


def test_calls_that_were_never_made_are_confessed_even_if_all_else_was_fine():
    found = recorded([40] * 100)
    found.unsent = 3
    assert step(found).generator.limited_by == ("calls never made, because their time was over: 3",)


def test_values_beyond_what_is_kept_count_as_the_most_that_is():
    found = Record()
    record(found.latency, 1e6)
    record(found.latency, -1)
    assert found.latency.get_total_count() == 2
    assert measure.distribution(found.latency).max_ms == pytest.approx(3.6e6, rel=1e-3)


def test_of_no_calls_there_are_no_percentiles():
    result = step(Record())
    assert (result.latency, result.refusal, result.meets_slo, result.answered_per_s) == (None, None, False, 0)
