"""Scores depend, to the bit, on the query and the index alone, and shards answer as one index."""

from itertools import pairwise

import faiss
import numpy as np
import pytest

from search_svc.building import faiss_index
from search_svc.engine.adapters import (
    FlatAdapter,
    IvfAdapter,
    OneByOneAdapter,
    SearchOptions,
    TransformedAdapter,
    adapter_of,
    nearest,
)
from search_svc.engine.asking import Question
from search_svc.engine.comparing import rescored
from search_svc.engine.faiss_layers import METRICS
from search_svc.engine.merge import merge
from search_svc.engine.shard import Shard
from search_svc.index.version import SearchParams

D, PHOTOS, TIMES = 96, 60, 20
N = PHOTOS * TIMES
K = 10
PARAMS = SearchParams(nprobe=5)
UNFILTERED = (faiss.IndexPQ, faiss.IndexIVFAdditiveQuantizer)

# Kinds of index whose scores depend on a photo's code and the query alone.
SHARDABLE = [
    "Flat",
    "SQ8",
    "SQ4",
    "SQfp16",
    "PQ8x4",
    "IVF16,Flat",
    "IVF16,SQ8",
    "IVF16,PQ8x4",
    "IVF16,RaBitQ",
    "IVF16,RQ4x4",
    "IVF16_HNSW8,SQ8",
]
OTHERS = ["PCA32,Flat", "PCA32,IVF16,SQ8", "IVF16,PQ8x4fs", "IVF16,PQ8x4,RFlat", "HNSW8,SQ8"]


@pytest.fixture(scope="module")
def gallery():
    """Unit vectors, each of which is there many times, far apart: all copies tie, if scores are equal to the bit."""
    unit = np.random.default_rng(0).standard_normal((PHOTOS, D))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.tile(unit.astype(np.float16), (TIMES, 1))


@pytest.fixture(scope="module")
def queries(gallery):
    noise = np.random.default_rng(1).standard_normal((64, D))
    return (gallery[:64] + noise / 60).astype(np.float32)


@pytest.fixture(scope="module", params=["ip", "l2"])
def metric(request):
    return request.param


@pytest.fixture(scope="module")
def trained(gallery, metric):
    """Return a function that makes a trained, empty index of a kind. k-means draws from the photos and all their copies."""
    known = {}

    def train(factory):
        if factory not in known:
            index = faiss.index_factory(D, factory, METRICS[metric])
            noise = np.random.default_rng(2).standard_normal(gallery.shape) / 30
            index.train((gallery + noise).astype(np.float32))
            known[factory] = index
        return known[factory]

    return train


def shard(trained, gallery, metric, rows):
    index = faiss.clone_index(trained)
    faiss_index.add(index, gallery[np.array(rows)].astype(np.float32))
    return Shard(adapter_of(index), gallery, metric, rows, None, filters=not isinstance(index, UNFILTERED))


def ask(shards, queries, k, params=PARAMS, rows=None):
    question = Question(queries, k, params, rows)
    return merge([each.answer(question.of(each.rows)) for each in shards], k)


def search(shards, queries, k, rows=None, batch=64):
    starts = range(0, len(queries), batch)
    parts = [ask(shards, queries[start : start + batch], k, rows=rows) for start in starts]
    return np.concatenate([part.ids for part in parts]), np.concatenate([part.scores for part in parts])


def check_same(found, expected, what):
    np.testing.assert_array_equal(found[0], expected[0], what)
    np.testing.assert_array_equal(found[1], expected[1], what)


@pytest.mark.parametrize("factory", SHARDABLE + OTHERS)
def test_a_query_gets_the_bits_that_it_gets_alone(trained, gallery, queries, metric, factory):
    whole = [shard(trained(factory), gallery, metric, range(N))]
    alone = search(whole, queries, K, batch=1)
    for batch in (7, 32, 64):
        check_same(search(whole, queries, K, batch=batch), alone, f"{batch} at a time")


@pytest.mark.parametrize("factory", SHARDABLE + OTHERS)
def test_no_queries_get_no_hits(trained, gallery, metric, factory):
    whole = [shard(trained(factory), gallery, metric, range(N))]
    found = ask(whole, np.empty((0, D), np.float32), K)
    assert found.ids.shape == found.scores.shape == (0, K)


@pytest.mark.parametrize("factory", SHARDABLE)
def test_parts_answer_as_the_whole_with_and_without_a_filter_and_reranking(trained, gallery, queries, metric, factory):
    allowed = np.random.default_rng(3).random(N) < 0.3
    whole = [shard(trained(factory), gallery, metric, range(N))]
    cuts = [0, 130, 700, N]
    for parts in (
        [range(first, N, 2) for first in range(2)],
        [range(first, N, 7) for first in range(7)],
        [range(start, stop) for start, stop in pairwise(cuts)],
    ):
        shards = [shard(trained(factory), gallery, metric, rows) for rows in parts]
        for rows in (None, allowed):
            expected, found = (search(each, queries, 4 * K, rows) for each in (whole, shards))
            check_same(found, expected, f"{parts}")
            if rows is not None:
                assert rows[found[0][found[0] >= 0]].all()
        one, several = (rescored(ask(some, queries, 4 * K), queries, gallery, metric) for some in (whole, shards))
        check_same((several.ids, several.scores), (one.ids, one.scores), "reranked")


@pytest.mark.parametrize("count", [1, 7, 19, 20, 64])
def test_exact_answers_are_those_of_a_flat_index_to_the_bit_however_many_ask(gallery, queries, metric, count, trained):
    flat = [shard(trained("Flat"), gallery, metric, range(N))]
    parts = [shard(trained("SQ4"), gallery, metric, range(first, N, 3)) for first in range(3)]
    allowed = np.random.default_rng(3).random(N) < 0.3
    for rows in (None, allowed):
        expected = search(flat, queries[:count], 30, rows)
        found = ask(parts, queries[:count], 30, None, rows)
        check_same((found.ids, found.scores), expected, "exact")


def test_lists_that_tie_are_visited_first_come_in_any_company():
    """All centroids are the same vector, so rounding must not decide which lists are visited."""
    centre = np.random.default_rng(0).standard_normal((1, D)).astype(np.float32)
    quantizer = faiss.IndexFlatIP(D)
    quantizer.add(np.repeat(centre, 64, axis=0))
    index = faiss.IndexIVFFlat(quantizer, D, 64, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    adapter = adapter_of(index)
    queries = np.random.default_rng(1).standard_normal((64, D)).astype(np.float32)
    for batch in (1, 64):
        chosen = adapter.choose_lists(queries[:batch], SearchOptions(SearchParams(nprobe=3)))
        assert chosen.ids.tolist() == [[0, 1, 2]] * batch


@pytest.mark.parametrize(
    ("factory", "kinds"),
    [
        ("Flat", [FlatAdapter]),
        ("IVF16,SQ8", [IvfAdapter, FlatAdapter]),
        ("IVF16_HNSW8,SQ8", [IvfAdapter, OneByOneAdapter]),
        ("PCA32,IVF16,SQ8", [TransformedAdapter, IvfAdapter]),
        ("IVF16,PQ8x4fs", [OneByOneAdapter]),
        ("HNSW8,SQ8", [OneByOneAdapter]),
    ],
)
def test_each_layer_is_asked_in_its_own_way(factory, kinds):
    adapter = adapter_of(faiss.index_factory(D, factory, faiss.METRIC_INNER_PRODUCT))
    for kind in kinds:
        assert type(adapter) is kind
        adapter = getattr(adapter, "inner", None) or getattr(adapter, "quantizer", None)


def test_one_query_of_lists_gets_what_faiss_says(trained, gallery, queries, metric):
    for factory in ("IVF16,Flat", "IVF16,SQ8", "IVF16,PQ8x4", "IVF16_HNSW8,SQ8"):
        index = faiss.clone_index(trained(factory))
        index.add(gallery.astype(np.float32))
        told = faiss.SearchParametersIVF(nprobe=5)
        for row in range(len(queries)):
            distances, _ = index.search(queries[row : row + 1], K, params=told)
            found = nearest(adapter_of(index), queries[row : row + 1], K, SearchOptions(PARAMS))
            np.testing.assert_array_equal(found.scores, distances if metric == "ip" else -distances)


def test_a_flat_index_whose_longest_vector_is_known_is_opened_and_asked_without_measuring_it(trained, gallery, metric):
    class Untouchable:
        ntotal, d, metric_type = N, D, METRICS[metric]

    index = Untouchable()
    assert FlatAdapter(index, 2.5).longest == 2.5
    measured = shard(trained("Flat"), (3 * gallery).astype(np.float16), metric, range(N)).adapter.longest
    assert measured == pytest.approx(3, rel=1e-2)
