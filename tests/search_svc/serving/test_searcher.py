"""Queries of one batch, each in its own way, over an engine that does as it is told."""

import math
import time

import numpy as np
import pytest

from search_svc.engine.engine import Answered
from search_svc.engine.merge import Hits
from search_svc.index.version import SearchParams
from search_svc.live.view import Opened, View
from search_svc.serving.queries import Plan, Query
from search_svc.serving.searcher import Searcher
from svckit.errors import Reason, ServiceError

PARAMS = SearchParams(nprobe=3)


class FakeEngine:
    """Three shards. Finds row 0 alone; fails where k is 13, and lacks a shard where partial answers are allowed."""

    shards = 3
    batching = False

    def __init__(self):
        self.asked = []

    def search(self, queries, k, **how):
        self.asked.append((queries[:, 0].tolist(), k, how))
        if k == 13:
            raise ServiceError(Reason.SHARD_TIMEOUT, "late")
        hits = Hits(np.ones((len(queries), 1), np.float32), np.zeros((len(queries), 1), np.int64))
        return Answered(hits, 3 - how["allow_partial"])


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def searcher(engine, build_index):
    view = View(Opened(build_index(np.eye(4, dtype=np.float32)), engine))
    return Searcher(lambda: view)


def query(number, plan, deadline=math.inf):
    return Query(np.array([number, 0, 0, 0], np.float32), plan, deadline)


def plan(k=1, **how):
    return Plan(k, PARAMS, exact=False, **how)


def test_queries_of_one_plan_are_searched_together_and_answered_in_order(searcher, engine):
    plans = [plan(1), plan(2), plan(1), plan(1, timeout_s=5.0), plan(1, allow_partial=True), plan(2)]
    found = searcher.run([query(number, each) for number, each in enumerate(plans)])
    assert [asked for asked, _, _ in engine.asked] == [[0, 2], [1, 5], [3], [4]]
    assert [how["params"] for _, _, how in engine.asked] == 4 * [PARAMS]
    assert [how["timeout_s"] for _, _, how in engine.asked] == [None, None, 5.0, None]
    assert [each.missing for each in found] == [0, 0, 0, 0, 1, 0]
    assert all(each.neighbours.rows == [0] for each in found)


def test_a_plan_that_fails_fails_its_own_queries_alone(searcher):
    found = searcher.run([query(0, plan(1)), query(1, plan(13)), query(2, plan(2)), query(3, plan(13))])
    assert [getattr(each, "reason", None) for each in found] == [None, "SHARD_TIMEOUT", None, "SHARD_TIMEOUT"]
    assert (found[0].neighbours.rows, found[2].neighbours.rows) == ([0], [0])


def test_a_fault_of_the_engine_is_of_that_plan_alone_too(searcher, engine, monkeypatch):
    search = engine.search

    def fails(queries, k, **how):
        return search(queries, k, **how) if k == 1 else 1 / 0

    monkeypatch.setattr(engine, "search", fails)
    first, second = searcher.run([query(0, plan(1)), query(1, plan(2))])
    assert first.neighbours.rows == [0]
    assert isinstance(second, ZeroDivisionError)


@pytest.mark.parametrize(("allow_partial", "share"), [(False, 1.0), (True, 0.9)])
def test_shards_have_until_the_last_caller_leaves_less_what_a_partial_answer_needs_to_be_sent(
    searcher, engine, allow_partial, share
):
    before = time.monotonic()
    how = plan(timeout_s=600.0, allow_partial=allow_partial)
    searcher.run([query(0, how, before + 50), query(1, how, before + 100), query(2, how, before + 10)])
    [(_, _, asked)] = engine.asked
    assert share * (100 - (time.monotonic() - before)) <= asked["timeout_s"] <= share * 100


def test_shards_have_no_longer_than_the_plan_says(searcher, engine):
    searcher.run([query(0, plan(timeout_s=5.0), time.monotonic() + 100)])
    assert engine.asked[0][2]["timeout_s"] == 5.0


def test_nobody_is_asked_for_callers_who_left(searcher, engine):
    late, fine = searcher.run([query(0, plan(1), time.monotonic()), query(1, plan(2))])
    assert late.reason is Reason.DEADLINE_EXCEEDED
    assert fine.neighbours.rows == [0]
    assert [k for _, k, _ in engine.asked] == [2]


@pytest.mark.parametrize(
    ("batching", "exact", "short"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_batches_are_short_where_queries_cost_as_much_together_as_one_by_one(searcher, engine, batching, exact, short):
    engine.batching = batching
    searcher.run([query(0, plan()), query(1, Plan(1, PARAMS, exact=exact))])
    assert (searcher.longest_s < 1) is short
    engine.batching = False
    searcher.run([query(0, plan())])
    assert searcher.longest_s < 1
