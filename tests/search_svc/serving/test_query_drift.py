"""Drift: recent queries against the photos that a calibration was fitted to."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.serving.query_drift import LEAST, WINDOW, QueryDrift, _levelled, stability_index

RNG = np.random.default_rng(0)
DEV = RNG.normal(0.4, 0.1, 800)
DECILES = tuple(np.quantile(DEV, np.arange(1, 10) / 10).tolist())


def drift_of(similarities, deciles=DECILES):
    drift = QueryDrift()
    drift.add(similarities, deciles)
    return drift.index


def test_equal_shares_have_an_index_of_zero():
    parts = [DECILES[0] - 1, *((low + high) / 2 for low, high in itertools.pairwise(DECILES)), 1.0]
    assert stability_index(100 * parts, DECILES) == pytest.approx(0, abs=1e-12)


def test_the_index_is_the_formula_of_the_page():
    """Half of the queries below the first decile, half above the last: 2 (0.5 - 0.1) ln 5, and eight parts that are empty."""
    queries = 100 * [DECILES[0] - 1] + 100 * [DECILES[-1] + 1]
    empty = 0.5 / 200
    assert stability_index(queries, DECILES) == pytest.approx(
        2 * 0.4 * math.log(5) + 8 * (empty - 0.1) * math.log(empty / 0.1)
    )


def test_queries_like_the_dev_photos_are_below_what_is_worth_a_look_and_others_beyond_what_is_another_population():
    assert drift_of(RNG.normal(0.4, 0.1, WINDOW)) < 0.1
    assert drift_of(RNG.normal(0.3, 0.1, WINDOW)) > 0.25
    assert drift_of(RNG.normal(0.5, 0.1, WINDOW)) > 0.25


def with_copies(share, mean=0.4, count=WINDOW):
    """Similarities of photos, so many of which the gallery has copies of."""
    copies = round(share * count)
    return np.concatenate([RNG.normal(mean, 0.1, count - copies), np.full(copies, 1.0)])


@pytest.mark.parametrize("share", [0.25, 0.45, 0.95])
def test_queries_like_dev_photos_that_are_often_copies_have_no_drift_and_others_have(share):
    deciles = tuple(np.quantile(with_copies(share), np.arange(1, 10) / 10).tolist())
    assert len(set(deciles)) < 9
    assert drift_of(with_copies(share), deciles) < 0.1
    assert drift_of(with_copies(0), deciles) > 0.25
    assert drift_of(with_copies(0, mean=0.3), deciles) > 0.25


def test_copies_at_the_lowest_similarity_and_at_two_of_them_count_in_the_parts_around_them():
    dev = np.repeat([-1.0, 0.0, 0.5, 1.0], [300, 100, 100, 500])
    deciles = tuple(np.quantile(dev, np.arange(1, 10) / 10, method="lower").tolist())
    assert drift_of(dev, deciles) < 0.1


def test_more_is_added_to_the_lowest():
    counts = np.array([5.0, 1.0, 3.0])
    assert _levelled(counts, 0).tolist() == [5, 1, 3]
    assert _levelled(counts, 1).tolist() == [5, 2, 3]
    assert _levelled(counts, 4).tolist() == [5, 4, 4]
    assert _levelled(counts, 9).tolist() == [6, 6, 6]


@given(
    st.lists(st.floats(-1, 1) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=50),
    st.lists(st.floats(-1, 1) | st.sampled_from([0.0, 1.0]), min_size=9, max_size=9),
)
def test_the_index_is_never_negative(similarities, deciles):
    assert stability_index(similarities, DECILES) >= 0
    assert stability_index(similarities, sorted(deciles)) >= 0


def test_few_queries_say_nothing():
    assert math.isnan(drift_of(DEV[: LEAST - 1]))
    assert not math.isnan(drift_of(DEV[:LEAST]))


def test_a_gallery_without_deciles_says_nothing():
    assert math.isnan(drift_of(DEV, ()))


def test_only_recent_queries_count():
    drift = QueryDrift()
    drift.add(WINDOW * [0.0], DECILES)
    assert drift.index > 0.25
    drift.add(RNG.normal(0.4, 0.1, WINDOW), DECILES)
    assert drift.index < 0.1


def test_queries_to_another_calibration_are_forgotten():
    drift = QueryDrift()
    drift.add(WINDOW * [0.0], DECILES)
    drift.add(DEV[:LEAST], tuple(each - 0.01 for each in DECILES))
    assert drift.index < 0.25
