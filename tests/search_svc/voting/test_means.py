"""Means against numpy, whose sums of few float16 values in float64 are exact as well."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from search_svc.voting import means
from search_svc.voting.means import Means, sum_by_label

D = 5
halves = arrays.arrays(np.float16, (12, D), elements=st.floats(-65504, 65504, width=16))


@given(halves, st.permutations(range(12)))
def test_a_sum_is_exact_and_so_does_not_depend_on_the_order_to_the_bit(embeddings, order):
    label_of = np.arange(12, dtype=np.int32) % 3
    sums = sum_by_label(embeddings, label_of, 4)
    assert sum_by_label(embeddings[order], label_of[order], 4).tobytes() == sums.tobytes()
    for label in range(3):
        exact = [sum(map(Fraction, map(float, column))) for column in embeddings[label::3].T]
        assert list(map(Fraction, sums[label].tolist())) == exact
    assert not sums[3].any()


def test_many_embeddings_are_summed_in_parts(monkeypatch):
    embeddings = np.random.default_rng(0).standard_normal((100, D)).astype(np.float16)
    label_of = np.random.default_rng(1).integers(0, 7, 100).astype(np.int32)
    whole = sum_by_label(embeddings, label_of, 7)
    monkeypatch.setattr(means, "_BLOCK", 9)
    assert sum_by_label(embeddings, label_of, 7).tobytes() == whole.tobytes()


@pytest.fixture(scope="module")
def sums():
    return np.random.default_rng(2).standard_normal((40, 33))


def test_similarities_are_the_cosines_with_the_sums(sums):
    queries = np.random.default_rng(3).standard_normal((6, 33)).astype(np.float32)
    labels = np.random.default_rng(4).integers(0, 40, (6, 9))
    changed = {3: sums[4] + 1, 41: sums[5] - 1}
    labels[0, :3] = 3, 41, 40
    expected = np.zeros((6, 9))
    everything = [*sums, np.zeros(33), changed[41]]
    everything[3] = changed[3]
    for (query, place), label in np.ndenumerate(labels):
        lengths = np.linalg.norm(queries[query].astype(float)) * np.linalg.norm(everything[label])
        expected[query, place] = queries[query] @ everything[label] / lengths if lengths else 0
    found = Means(sums, changed).similarities(queries, labels)
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[0, 2] == 0, "the label 40 has no photos"


def test_where_there_is_no_neighbour_and_no_direction_the_similarity_is_0(sums):
    queries = np.ones((2, 33), np.float32)
    labels = np.array([[-1, 0, 1], [1, -1, -1]])
    found = Means(sums, {0: np.zeros(33)}).similarities(queries, labels)
    assert (found == 0).tolist() == [[True, True, False], [False, True, True]]
    assert Means(sums).similarities(queries, np.empty((2, 0), np.int64)).shape == (2, 0)


@given(st.data())
def test_a_similarity_is_the_same_bits_whatever_else_is_asked(sums, data):
    queries = np.random.default_rng(5).standard_normal((30, 33)).astype(np.float32)
    some = data.draw(st.lists(st.integers(0, 29), min_size=1, max_size=30))
    labels = data.draw(arrays.arrays(np.int64, (len(some), 4), elements=st.integers(-1, 39)))
    together = Means(sums).similarities(queries[some], labels)
    for place, query in enumerate(some):
        for column in range(4):
            alone = Means(sums).similarities(queries[[query]], labels[place : place + 1, column : column + 1])
            assert alone[0, 0] == together[place, column]


def test_the_memory_that_similarities_take_does_not_grow_with_the_pairs():
    """One call may ask for 65,536 neighbours, each of another label: all pairs at once would be a gigabyte of 2048 floats."""
    rng = np.random.default_rng(6)
    sums = rng.standard_normal((4 * means._PAIRS, 64))
    labels = np.arange(len(sums)).reshape(2, -1)
    queries = rng.standard_normal((2, 64)).astype(np.float32)
    tracemalloc.start()
    found = Means(sums).similarities(queries, labels)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < sums.nbytes
    asked = queries.astype(np.float64).repeat(labels.shape[1], 0)
    lengths = np.linalg.norm(sums, axis=1) * np.linalg.norm(asked, axis=1)
    assert found.ravel() == pytest.approx((sums * asked).sum(1) / lengths, abs=1e-12)
