from dataclasses import dataclass, field

import numpy as np
import pytest

from search_svc.building.build import IndexSpec
from search_svc.engine.engine import Answered
from search_svc.engine.local import LocalEngine
from search_svc.engine.merge import Hits
from search_svc.evaluation.accuracy import NEAREST, outcomes
from search_svc.index.version import SearchParams
from search_svc.select.exam import Exam, timings
from search_svc.voting.labels import parse

NAMES = [f"make_model {number}_2010" for number in range(6)]


@pytest.fixture
def asked(build_index):
    """An engine over 90 photos of six labels, and the arguments of an exam with 70 other photos."""
    rng = np.random.default_rng(0)
    centres, of, truth = rng.standard_normal((6, 16)), rng.integers(6, size=90), rng.integers(6, size=70)
    gallery = (centres[of] + rng.standard_normal((90, 16))).astype(np.float32)
    queries = (centres[truth] + rng.standard_normal((70, 16))).astype(np.float32)

    def opened(factory="Flat", shards=1, metric="ip"):
        spec = IndexSpec(factory, metric, shards=shards)
        version = build_index(gallery, names=[NAMES[label] for label in of], spec=spec)
        engine = LocalEngine.open(version)
        exam = Exam.prepare(
            engine,
            queries=queries,
            truth=truth.astype(np.int32),
            label_of=version.items.label_of,
            gallery=version.embeddings,
            metric=metric,
        )
        return engine, exam

    return opened


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_top_1_and_top_5_are_as_evaluate_takes_them(asked, metric):
    engine, exam = asked("IVF4,SQ4", metric=metric)
    with engine:
        found = exam.quality(engine, SearchParams(nprobe=2))
        ids = engine.search(exam.queries, 5, params=SearchParams(nprobe=2)).hits.ids
    labels = [parse(name) for name in NAMES]
    right = [
        outcomes(labels[truth], [labels[exam.label_of[row]] for row in rows], None)
        for truth, rows in zip(exam.truth, ids, strict=True)
    ]
    assert found.top_1 == pytest.approx(np.mean([photo["label", NEAREST] for photo in right]))
    assert found.top_5 == pytest.approx(np.mean([photo["label", "nearest, top-5 images"] for photo in right]))
    assert found.top_1 < found.top_5


def test_recall_is_that_counted_by_hand(asked):
    engine, exam = asked("IVF8,Flat", shards=2)
    with engine:
        found = exam.quality(engine, SearchParams(nprobe=1))
        ids = engine.search(exam.queries, 10, params=SearchParams(nprobe=1)).hits.ids
    exact = np.argsort(-(exam.queries @ exam.gallery.astype(np.float32).T), axis=1, kind="stable")[:, :10]
    shared = [len(set(mine) & set(true)) / 10 for mine, true in zip(ids.tolist(), exact.tolist(), strict=True)]
    assert found.recall_10 == pytest.approx(np.mean(shared))
    assert found.recall_1 == pytest.approx(np.mean(ids[:, 0] == exact[:, 0]))
    assert found.recall_10 < found.recall_1 < 1


def test_an_index_that_loses_nothing_has_full_recall(asked):
    engine, exam = asked()
    with engine:
        found = exam.quality(engine, SearchParams())
    assert (found.recall_1, found.recall_10) == (1.0, 1.0)


@dataclass
class Fixed:
    """An engine that answers with the given ids, and records the queries."""

    ids: np.ndarray
    calls: list = field(default_factory=list)

    def search(self, queries, k, *, params=None, exact=False):
        self.calls.append((len(queries), params))
        ids = np.repeat(self.ids[None], len(queries), axis=0)
        return Answered(Hits(np.ones(ids.shape, np.float32), ids), 1)


def exam_of(gallery, label_of):
    queries = np.eye(4, dtype=np.float32)[:1]
    scores = np.sort((queries @ gallery.T.astype(np.float32))[0])[::-1][:10]
    first, tenth = (np.array([each], np.float32) for each in (scores[0], scores[-1]))
    return Exam(queries, np.array([0], np.int32), np.array(label_of, np.int32), gallery, "ip", first, tenth)


def test_another_copy_of_a_photo_is_as_good():
    gallery = np.zeros((20, 4), np.float16)
    gallery[:, 0] = [1, 1, *np.linspace(0.9, 0.1, 18)]
    found = exam_of(gallery, [0] * 20).quality(Fixed(np.array([1, 0, *range(2, 10)])), SearchParams())
    assert (found.recall_1, found.recall_10) == (1.0, 1.0)
    found = exam_of(gallery, [0] * 20).quality(Fixed(np.array([2, 1, *range(3, 9), 10, 11])), SearchParams())
    assert (found.recall_1, found.recall_10) == (0.0, 0.8)


def test_a_hit_that_is_missing_is_not_right():
    gallery = np.eye(4, dtype=np.float16)[[0, 1, 2, 3] * 5]
    found = exam_of(gallery, [1] * 19 + [0]).quality(Fixed(np.full(10, -1)), SearchParams())
    assert (found.top_1, found.top_5, found.recall_1, found.recall_10) == (0.0, 0.0, 0.0, 0.0), "-1 is no photo's row"


def test_each_round_asks_every_point_in_turn(monkeypatch):
    monkeypatch.setattr("search_svc.select.exam._SINGLES", 3)
    monkeypatch.setattr("search_svc.select.exam._BATCHES", 1)
    engine, fast, slow = Fixed(np.arange(10)), SearchParams(nprobe=1), SearchParams(nprobe=8)
    found = timings([(engine, fast), (engine, slow)], np.zeros((5, 4), np.float32), rounds=2)
    once = [(1, fast)] * 3 + [(64, fast)] + [(1, slow)] * 3 + [(64, slow)]
    assert engine.calls == 2 * once
    assert len(found) == 2


def test_times_are_medians_over_rounds_of_each_rounds_figures(monkeypatch):
    rounds = iter([(1.0, 10.0, 5.0, 9.0), (100.0, 1.0, 5.0, 70.0), (2.0, 20.0, 6.0, 8.0)])
    monkeypatch.setattr("search_svc.select.exam._round", lambda *_: next(rounds))
    [found] = timings([(None, None)], np.zeros((1, 4), np.float32), rounds=3)
    assert (found.qps_1, found.qps_64, found.p50_ms, found.p99_ms) == (2.0, 10.0, 5.0, 9.0)


def test_figures_of_a_round_have_their_units(monkeypatch):
    clock = iter(np.arange(0, 10_000, 0.25))
    monkeypatch.setattr("search_svc.select.exam.time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr("search_svc.select.exam._ROUND_S", 1000.0)
    [found] = timings([(Fixed(np.arange(10)), SearchParams())], np.zeros((5, 4), np.float32), rounds=1)
    assert (found.qps_1, found.qps_64, found.p50_ms, found.p99_ms) == (4.0, 256.0, 250.0, 250.0)


def test_a_round_ends_after_a_while_however_slow_an_index_is(monkeypatch):
    monkeypatch.setattr("search_svc.select.exam._ROUND_S", 0.0)
    engine = Fixed(np.arange(10))
    timings([(engine, SearchParams())], np.zeros((5, 4), np.float32), rounds=1)
    assert [queries for queries, _ in engine.calls] == [1, 64]
