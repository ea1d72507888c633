import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.audit import neighbours
from search_svc.audit.neighbours import NOBODY, Neighbours, nearest, nearest_of_label


def unit(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_hand(vectors, k, among):
    """Return the scores of every photo's nearest neighbours among those for which `among(row, other)` is true."""
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    return [
        sorted(
            (cosines[row, other] for other in range(len(vectors)) if other != row and among(row, other)), reverse=True
        )[:k]
        for row in range(len(vectors))
    ]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 50), st.integers(0, 9))
def test_blocks_of_any_size_find_the_nearest_but_the_photo_itself(count, k, rows, seed):
    vectors, done = unit(count, seed), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_ROWS", rows)
        found = nearest(3 * vectors, k, done.append)  # the length does not matter
    assert sum(done) == count
    for row, expected in enumerate(by_hand(vectors, k, lambda *_: True)):
        there = found.rows[row] != NOBODY
        assert there.sum() == len(expected)
        assert np.allclose(found.scores[row][there], expected, atol=1e-5)
        assert np.allclose(vectors[found.rows[row][there]] @ vectors[row], expected, atol=1e-5)
        assert np.isneginf(found.scores[row][~there]).all()
        assert row not in found.rows[row]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 4))
def test_the_nearest_of_a_label_are_of_it(labels, k):
    labels, vectors = np.array(labels), unit(len(labels))
    found = nearest_of_label(vectors, labels, k)
    for row, expected in enumerate(by_hand(vectors, k, lambda row, other: labels[row] == labels[other])):
        there = found.rows[row] != NOBODY
        assert np.allclose(found.scores[row][there], expected, atol=1e-5)
        assert there.sum() == len(expected)
        assert (labels[found.rows[row][there]] == labels[row]).all()


def test_what_is_left_of_the_neighbours_stays_in_order():
    found = Neighbours(np.array([[4, 2, 7]], np.int32), np.array([[0.9, 0.8, 0.7]], np.float32))
    left = found.only(np.array([[False, True, True]]))
    assert left.rows.tolist() == [[2, 7, NOBODY]]
    assert left.scores.tolist() == [[np.float32(0.8), np.float32(0.7), -np.inf]]
