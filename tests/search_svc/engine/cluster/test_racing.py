"""Which replicas are asked, and which answer counts: with replicas that answer when a test says so."""

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

ray = pytest.importorskip("ray", reason="NO RAY HERE: the tests of what runs on a cluster did not run")

from search_svc.engine.cluster import racing  # noqa: E402
from search_svc.engine.cluster.keeper import Placed, Table  # noqa: E402
from search_svc.engine.cluster.racing import Racer  # noqa: E402
from search_svc.engine.cluster.recent import RecentTimes  # noqa: E402
from search_svc.engine.shard_thread import MOST_ABANDONED  # noqa: E402

SOON, LATER_S, NEVER_S = 2**-10, 2**-4, 600.0


class Actor:
    """A replica that answers at once, unless it is told to keep silent, or to fail."""

    def __init__(self, name):
        self.name, self.asked, self.silent, self.error = name, [], False, None

    def call(self):
        future = Future()
        self.asked.append(future)
        if self.error:
            future.set_exception(self.error)
        elif not self.silent:
            future.set_result(self.name)
        return self

    def future(self):
        return self.asked[-1]


class Recent(RecentTimes):
    """Says when a second replica is asked."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def p95(self):
        return self.seconds


@pytest.fixture(autouse=True)
def down_for_good(monkeypatch):
    """A replica that has failed is left alone until the test is over, however long that takes."""
    monkeypatch.setattr(racing, "_DOWN_S", NEVER_S)


@pytest.fixture
def clock(monkeypatch):
    """Time passes only while a search waits for answers that do not come."""
    clock = SimpleNamespace(now=0.0)

    def wait(futures, timeout_s, _):
        done = {each for each in futures if each.done()}
        clock.now += 0 if done else timeout_s
        return SimpleNamespace(done=done)

    monkeypatch.setattr(racing, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(racing, "wait", wait)
    return clock


@pytest.fixture
def actors():
    """Two replicas of each of two shards."""
    return [[Actor(f"{shard}{replica}") for replica in "ab"] for shard in range(2)]


@pytest.fixture
def racer(actors):
    shards = tuple(tuple(Placed(each.name, each.name[-1], "", each, up=True) for each in shard) for shard in actors)
    return Racer(lambda: Table(shards, 2, settled=True, problem="", nodes=()))


def ask(racer, shards=(0, 1), *, second_s=NEVER_S, timeout_s=NEVER_S):
    return racer.ask(dict.fromkeys(shards, Actor.call), timeout_s, Recent(second_s))


def test_each_shard_is_asked_once_and_its_replicas_in_turn(racer, actors):
    answers = [ask(racer) for _ in range(6)]
    assert answers == 3 * [{0: "0a", 1: "1a"}, {0: "0b", 1: "1b"}]
    assert [len(each.asked) for shard in actors for each in shard] == 4 * [3]


def test_a_replica_that_fails_is_followed_by_the_other_at_once_and_left_alone_for_a_while(racer, actors):
    actors[0][0].error = ray.exceptions.ActorUnavailableError("gone", None)
    assert [ask(racer, [0])[0] for _ in range(5)] == 5 * ["0b"]
    assert len(actors[0][0].asked) == 1
    assert racer.hedged == 0


def test_a_replica_that_is_silent_is_followed_by_the_other_after_the_usual_time(racer, actors):
    actors[0][0].silent = True
    assert ask(racer, [0], second_s=SOON) == {0: "0b"}
    assert (racer.hedged, racer.abandoned) == (1, 1)
    # While it has a question to answer, the other is asked.
    assert [ask(racer, [0])[0] for _ in range(4)] == 4 * ["0b"]
    actors[0][0].silent = False
    actors[0][0].asked[0].set_result("late")
    assert {ask(racer, [0])[0] for _ in range(2)} == {"0a", "0b"}
    assert racer.abandoned == 0


def test_a_replica_that_is_late_and_then_hangs_delays_nobody(racer, actors, clock):
    actors[0][0].silent = True
    ask(racer, [0], second_s=SOON)
    assert racer.hedged == 1
    assert [ask(racer, [0], second_s=SOON)[0] for _ in range(20)] == 20 * ["0b"]
    assert racer.hedged == 1


def test_a_replica_that_fails_when_nobody_waits_any_more_is_left_alone_too(racer, actors):
    actors[0][0].silent = True
    ask(racer, [0], second_s=SOON)
    actors[0][0].asked[0].set_exception(ray.exceptions.ActorUnavailableError("gone", None))
    assert [ask(racer, [0])[0] for _ in range(4)] == 4 * ["0b"]


def test_the_first_answer_counts_even_if_it_is_of_the_replica_that_was_asked_first(racer, actors):
    first, second = actors[0]
    first.silent = second.silent = True
    found = []
    asking = threading.Thread(target=lambda: found.append(ask(racer, [0], second_s=SOON)))
    asking.start()
    while not second.asked:
        pass
    first.asked[0].set_result("0a")
    asking.join()
    assert found == [{0: "0a"}]


@pytest.mark.usefixtures("clock")
def test_shards_that_have_no_answer_in_time_are_missing(racer, actors):
    for each in actors[1]:
        each.silent = True
    assert ask(racer, second_s=SOON, timeout_s=LATER_S) == {0: "0a"}


def test_an_answer_that_has_come_counts_though_nobody_has_looked_until_the_time_was_over(racer, actors):
    actors[1][0].silent = True
    actors[1][1].error = ray.exceptions.ActorUnavailableError("gone", None)
    assert ask(racer, timeout_s=-1.0) == {0: "0a"}
    assert ask(racer, timeout_s=-1.0) == {0: "0b"}
    assert racer.abandoned == 2


@pytest.mark.usefixtures("clock")
def test_a_shard_whose_replicas_are_all_silent_for_long_is_not_waited_for(racer, actors):
    for each in actors[1]:
        each.silent = True
    for _ in range(MOST_ABANDONED):
        ask(racer, [1], second_s=SOON, timeout_s=LATER_S)
    assert [len(each.asked) for each in actors[1]] == 2 * [MOST_ABANDONED]
    assert ask(racer, [1]) == {}
    assert [len(each.asked) for each in actors[1]] == 2 * [MOST_ABANDONED]


def test_a_replica_that_is_not_up_is_not_asked(actors):
    shard = (Placed("0a", "a", "", actors[0][0], up=False), Placed("0b", "b", "", actors[0][1], up=True))
    racer = Racer(lambda: Table((shard,), 2, settled=False, problem="", nodes=()))
    assert [ask(racer, [0])[0] for _ in range(3)] == 3 * ["0b"]


@pytest.mark.usefixtures("clock")
def test_a_replica_is_asked_a_question_once(actors):
    actors[0][0].silent = True
    racer = Racer(
        lambda: Table(((Placed("0a", "a", "", actors[0][0], up=True),),), 1, settled=True, problem="", nodes=())
    )
    assert ask(racer, [0], second_s=SOON, timeout_s=LATER_S) == {}
    assert len(actors[0][0].asked) == 1


def test_what_the_code_of_a_replica_raises_is_raised(racer, actors):
    actors[0][0].error = ray.exceptions.RayTaskError("answer", "its trace", ValueError("wrong")).as_instanceof_cause()
    with pytest.raises(ValueError, match="its trace"):
        ask(racer, [0])
    assert ask(racer, [0]) == {0: "0b"}


def test_a_question_that_cannot_be_sent_is_raised_and_is_none_that_a_replica_is_busy_with(racer):
    def full(_):
        raise ray.exceptions.ObjectStoreFullError

    with pytest.raises(ray.exceptions.ObjectStoreFullError):
        racer.ask({0: full}, NEVER_S, Recent(NEVER_S))
    assert [ask(racer, [0])[0] for _ in range(4)] == ["0b", "0a", "0b", "0a"]


def test_a_search_that_waits_ends_when_the_racer_is_closed_and_nothing_is_asked_any_more(racer, actors):
    actors[0][0].silent = True
    found = []
    asking = threading.Thread(target=lambda: found.append(ask(racer, [0])))
    asking.start()
    while not actors[0][0].asked:
        pass
    racer.close()
    asking.join()
    assert found == [{}]
    assert ask(racer, [0]) == {}
    assert not actors[0][1].asked


def test_a_shard_is_up_while_one_of_its_replicas_may_answer(racer, actors):
    gone = ray.exceptions.ActorUnavailableError("gone", None)
    actors[0][0].error = gone
    ask(racer)
    ask(racer)
    assert racer.is_up(0)
    actors[0][1].error = gone
    assert ask(racer) == {1: "1a"}
    assert (racer.is_up(0), racer.is_up(1)) == (False, True)
