"""Which replicas are asked, of actors that answer as a test says."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

racing = pytest.importorskip(
    "search_svc.engine.cluster.racing", reason="NO RAY HERE: what replicas are asked was not tested"
)


@pytest.fixture
def racer():
    """A racer of one shard with two replicas."""
    replicas = [SimpleNamespace(name=name, up=True, actor=Actor()) for name in "ab"]
    racer = racing.Racer(lambda: SimpleNamespace(shards=(replicas,)))
    racer.actors = [replica.actor for replica in replicas]
    return racer


class Actor:
    """A replica that answers nothing until it is told to."""

    def __init__(self):
        self.outcome = None
        self.asked = []

    def ask(self):
        """Return a reference of an answer, of which only the future is looked at."""
        self.asked.append(Future())
        if self.outcome:
            self.outcome(self.asked[-1])
        return SimpleNamespace(future=lambda future=self.asked[-1]: future)

    def answer(self):
        """Answer what was asked, and at once what will be."""
        self.outcome = lambda future: future.set_result("an answer")
        for future in self.asked:
            self.outcome(future)


SENDS = {0: Actor.ask}


def task_error():
    return racing.RayTaskError("answer", "traceback", ValueError("a fault of ours"))


def test_an_error_of_a_replicas_code_is_raised_and_leaves_no_question_that_counts_as_running(racer):
    for actor in racer.actors:
        actor.outcome = lambda future: future.set_exception(task_error())
    for _ in range(9):
        with pytest.raises(racing.RayTaskError):
            racer.ask(SENDS, None, racing.RecentTimes())
    racer._tidy()
    assert racer.abandoned == 0
    assert not any(racer._busy.values())


def test_one_late_question_is_put_to_one_more_replica_and_what_nobody_waits_for_ends(racer):
    assert racer.ask(SENDS, 0.2, racing.RecentTimes()) == {}
    assert (racer.hedged, racer.abandoned) == (1, 2)
    for actor in racer.actors:
        actor.answer()
    assert racer.ask(SENDS, None, racing.RecentTimes())
    assert racer.abandoned == 0


def test_replicas_that_answer_nothing_are_asked_a_few_questions_and_no_more(racer):
    for _ in range(9):
        racer.ask(SENDS, 0.06, racing.RecentTimes())
    assert racer.abandoned == 2 * racing.MOST_ABANDONED


def test_no_replica_is_looked_for_once_closed(racer):
    def table():
        raise KeyError("the version was released")

    racer.close()
    racer._table = table
    assert racer.ask(SENDS, None, racing.RecentTimes()) == {}
    assert not racer.is_up(0)
