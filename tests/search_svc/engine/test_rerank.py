"""Reranking: the hits of a compressed index are compared again with the embeddings."""

import threading
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from search_svc.engine import asking, comparing, local
from search_svc.engine.comparing import rescored
from search_svc.engine.merge import Hits
from search_svc.index.version import SearchParams
from svckit.errors import Reason, ServiceError

SETTINGS = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
D = 6

# Few values, so that compressed scores and exact ones tie everywhere.
galleries = arrays.arrays(np.float32, st.tuples(st.integers(8, 80), st.just(D)), elements=st.integers(-2, 2)).filter(
    np.any
)
questions = arrays.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(D)), elements=st.integers(-2, 2))


def spread(count, dimension=32, seed=3):
    """Return seeded vectors without ties."""
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float16).astype(np.float32)


def by_hand(engine, exact, queries, k, rerank, **options):
    """Return the best k by exact score among the best k * rerank by the index's score."""
    pool = engine.search(queries, k * rerank, **options).hits.ids
    score = [dict(zip(*row, strict=True)) for row in zip(exact.ids.tolist(), exact.scores.tolist(), strict=True)]
    ranked = [
        sorted((-true[row], row) for row in found if row >= 0)[:k]
        for true, found in zip(score, pool.tolist(), strict=True)
    ]
    return [([row for _, row in each], [-minus for minus, _ in each]) for each in ranked]


def found(hits):
    return [
        (ids[ids >= 0].tolist(), scores[ids >= 0].tolist()) for ids, scores in zip(hits.ids, hits.scores, strict=True)
    ]


@pytest.mark.parametrize(
    ("factory", "metric"), [("SQ4", "ip"), ("SQ4", "l2"), ("IVF4,SQ4", "ip"), ("IVF4,SQ4", "l2"), ("Flat", "ip")]
)
def test_neighbours_are_the_best_of_the_candidates_by_exact_score_in_any_number_of_shards(open_shards, factory, metric):
    @SETTINGS
    @given(galleries, questions, st.integers(1, 12), st.integers(1, 4), st.data())
    def check(gallery, queries, k, rerank, data):
        rows = data.draw(st.none() | arrays.arrays(np.bool_, len(gallery)))
        for count in (1, 3, 7):
            with open_shards(gallery, factory=factory, metric=metric, shards=count) as engine:
                exact = engine.search(queries, len(gallery), exact=True).hits
                hits = engine.search(queries, k, params=SearchParams(rerank=rerank), rows=rows).hits
                if count == 1:
                    expected = by_hand(engine, exact, queries, k, rerank, params=SearchParams(), rows=rows)
                assert found(hits) == expected, f"{count} shards"

    check()


def test_with_all_photos_for_candidates_an_answer_is_that_of_exact_to_the_bit(open_shards):
    gallery, queries = spread(600, 256), spread(40, 256, seed=4)
    for factory, metric in product(("SQ4", "PQ8x4", "PCA8,SQ8", "HNSW8,SQ8"), ("ip", "l2")):
        with open_shards(gallery, factory=factory, metric=metric, shards=3, train_sample=600) as engine:
            everything = SearchParams(rerank=60, ef_search=600 if "HNSW" in factory else None)
            exact = engine.search(queries, 10, exact=True).hits
            for start in (0, 33):
                hits = engine.search(queries[start:], 10, params=everything).hits
                np.testing.assert_array_equal(hits.ids, exact.ids[start:], factory)
                np.testing.assert_array_equal(hits.scores, exact.scores[start:], factory)


def recall(ids, exact):
    """Return how many of the true neighbours were found, on average over the queries."""
    return np.mean([len({*found} & {*true}) for found, true in zip(ids.tolist(), exact.tolist(), strict=True)])


def test_more_candidates_find_more_of_the_true_neighbours(open_shards):
    gallery, queries = spread(2000), spread(50, seed=4)
    with open_shards(gallery, factory="IVF8,PQ8x4", nprobe=8, shards=2, train_sample=2000) as engine:
        exact = engine.search(queries, 10, exact=True).hits.ids
        pools = (None, *(SearchParams(nprobe=8, rerank=factor) for factor in (1, 4, 20, 200)))
        ladder = [recall(engine.search(queries, 10, params=params).hits.ids, exact) for params in pools]
    assert ladder[0] == ladder[1] < ladder[2] < ladder[3] < ladder[4] == 10


def test_exact_search_has_nothing_to_rerank(open_shards):
    gallery = spread(300)
    with open_shards(gallery, factory="SQ4", shards=2) as engine:
        plain = engine.search(gallery[:5], 3, exact=True).hits
        hits = engine.search(gallery[:5], 3, exact=True, params=SearchParams(rerank=2)).hits
    assert found(hits) == found(plain)


def test_no_query_has_more_candidates_than_allowed_but_never_fewer_than_neighbours(open_shards, monkeypatch):
    pools = []
    monkeypatch.setattr(local, "rescored", lambda hits, *rest: pools.append(hits.ids.shape[1]) or rescored(hits, *rest))
    monkeypatch.setattr(asking, "MOST_CANDIDATES", 50)
    with open_shards(spread(300), factory="SQ4", shards=2) as engine:
        for k, rerank in ((5, 4), (5, 40), (80, 3)):
            assert engine.search(spread(1), k, params=SearchParams(rerank=rerank)).hits.ids.shape[1] == k
    assert pools == [20, 50, 80]


def test_only_the_rows_of_candidates_are_read_each_once_and_in_the_order_they_lie():
    class Watched:
        def __init__(self, rows):
            self.rows, self.read = rows, []

        def __getitem__(self, rows):
            self.read.extend(rows.tolist())
            return self.rows[rows]

    embeddings = Watched(spread(100).astype(np.float16))
    candidates = Hits(np.zeros((2, 3), np.float32), np.array([[70, 4, -1], [4, 31, 70]]))
    scores = rescored(candidates, spread(2, seed=5), embeddings, "ip").scores
    assert embeddings.read == [4, 31, 70]
    assert np.isneginf(scores).tolist() == [[False, False, True], [False, False, False]]


def test_scores_do_not_depend_on_how_many_pairs_are_compared_at_a_time(monkeypatch):
    embeddings, queries = spread(500, 300).astype(np.float16), spread(20, 300, seed=5)
    ids = np.random.default_rng(0).integers(-1, 500, (20, 40))
    for metric in ("ip", "l2"):
        whole = rescored(Hits(np.empty(0), ids), queries, embeddings, metric).scores
        with monkeypatch.context() as patch:
            patch.setattr(comparing, "_CHUNK_PAIRS", 7)
            np.testing.assert_array_equal(rescored(Hits(np.empty(0), ids), queries, embeddings, metric).scores, whole)


@pytest.fixture
def stuck(monkeypatch):
    """An event; until it is set, reading embeddings blocks. Nothing but that is late, and only once it has begun."""
    free, begun, as_usual = threading.Event(), threading.Semaphore(0), local._abandon_late

    def blocks(*asked):
        begun.release()
        assert free.wait(60)
        return rescored(*asked)

    def late(workers, futures, timeout_s):
        reads = [worker.name for worker in workers] == ["embeddings.npy"]
        assert not reads or begun.acquire(timeout=60)
        return as_usual(workers, futures, timeout_s if reads and not free.is_set() else None)

    monkeypatch.setattr(local, "rescored", blocks)
    monkeypatch.setattr(local, "_abandon_late", late)
    yield free
    free.set()


def test_embeddings_that_cannot_be_read_fail_what_is_reranked_and_nothing_else(open_shards, stuck):
    with open_shards(spread(300), factory="SQ4", shards=2) as engine:
        for allow_partial in (False, True):
            with pytest.raises(ServiceError, match=r"not answered in time by embeddings\.npy") as caught:
                engine.search(spread(1), 5, params=SearchParams(rerank=2), timeout_s=0.1, allow_partial=allow_partial)
            assert (caught.value.reason, caught.value.metadata) == (Reason.SHARD_TIMEOUT, {"shards": "embeddings.npy"})
        assert engine.abandoned == 2
        assert engine.search(spread(1), 5).shards == 2
        stuck.set()
        assert engine.search(spread(1), 5, params=SearchParams(rerank=2)).hits.ids.shape == (1, 5)


def test_what_is_reranked_when_the_engine_is_interrupted_fails_at_once(open_shards, monkeypatch):
    never, begun = threading.Event(), threading.Event()
    monkeypatch.setattr(local, "rescored", lambda *asked: begun.set() or never.wait(60))
    engine = open_shards(spread(300), factory="SQ4")
    failed = []

    def search():
        with pytest.raises(ServiceError) as caught:
            engine.search(spread(1), 5, params=SearchParams(rerank=2))
        failed.append(caught.value.reason)

    caller = threading.Thread(target=search)
    caller.start()
    try:
        assert begun.wait(60)
        engine.interrupt()
        caller.join(60)
        assert failed == [Reason.SHUTTING_DOWN]
    finally:
        never.set()
        engine.close()
