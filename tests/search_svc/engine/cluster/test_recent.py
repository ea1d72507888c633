import math

from hypothesis import given
from hypothesis import strategies as st

from search_svc.engine.cluster.recent import RecentTimes


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_second_replica_is_asked_after_the_time_in_which_19_of_20_answered():
    recent = RecentTimes(Clock())
    for milliseconds in range(1, 101):
        recent.add(milliseconds / 1000)
    assert recent.p95() == 0.095


def test_what_is_older_than_a_minute_counts_no_more_and_few_times_say_nothing():
    clock = Clock()
    recent = RecentTimes(clock)
    guess = recent.p95()
    for _ in range(50):
        recent.add(9.0)
    assert recent.p95() == 9.0
    clock.now = 61.0
    assert recent.p95() == guess
    for _ in range(19):
        recent.add(0.2)
    assert recent.p95() == guess
    recent.add(0.2)
    assert recent.p95() == 0.2


def test_a_second_replica_is_never_asked_at_once():
    recent = RecentTimes(Clock())
    for _ in range(50):
        recent.add(0.0)
    assert recent.p95() > 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20)), min_size=1000, max_size=1100))
def test_it_is_the_rank_among_the_last_thousand_of_the_last_minute(answers):
    clock = Clock()
    recent, times = RecentTimes(clock), []
    for passed, seconds in answers:
        clock.now += passed / 50
        recent.add(float(seconds))
        times.append((clock.now, float(seconds)))
    ranked = sorted(seconds for at, seconds in times[-1000:] if at >= clock.now - 60)
    assert recent.p95() == ranked[math.ceil(0.95 * len(ranked)) - 1]
