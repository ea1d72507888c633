import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.evaluation.resampling import paired_difference, resampled, resampled_gap, share
from search_svc.fitting.calibration_metrics import auroc

OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).map(np.array)


def width(estimate):
    return estimate.high - estimate.low


def test_the_interval_of_a_share_is_as_wide_as_theory_says_and_shrinks_with_more_photos():
    few, many = (share(np.arange(photos) % 5 > 0, seed=0) for photos in (50, 5000))
    assert few.low < few.value == 0.8 < few.high
    assert width(many) == pytest.approx(2 * 1.96 * (0.8 * 0.2 / 5000) ** 0.5, rel=0.05)
    assert width(few) > 5 * width(many)


@pytest.mark.parametrize("photos", [1, 3, 300])
def test_the_interval_of_all_or_none_is_the_exact_one(photos):
    every, none = share(np.ones(photos, bool), seed=0), share(np.zeros(photos, bool), seed=0)
    assert (every.value, every.high, none.value, none.low) == (1, 1, 0, 0)
    assert every.low**photos == pytest.approx(0.025), "so often are all right, if that many are"
    assert none.high == pytest.approx(1 - every.low)


def test_what_never_differs_has_no_difference():
    same = np.array([True, False, True])
    assert paired_difference(same, same, seed=0).value == width(paired_difference(same, same, seed=0)) == 0


def test_a_difference_by_photo_is_surer_than_two_figures_apart():
    rng = np.random.default_rng(0)
    one = rng.random(1000) < 0.8
    other = one & (rng.random(1000) < 0.97)
    difference = paired_difference(one, other, seed=0)
    assert difference.low > 0, "3 % of the photos are lost and none won"
    assert width(difference) < width(share(one, seed=0)) / 2
    changed = np.mean(one != other)
    assert width(difference) == pytest.approx(2 * 1.96 * (changed * (1 - changed) / 1000) ** 0.5, rel=0.1)


@given(OUTCOMES)
def test_a_difference_is_signed_and_within_its_interval(outcomes):
    one, other = outcomes.T
    forth, back = paired_difference(one, other, seed=0), paired_difference(other, one, seed=0)
    assert forth.value == pytest.approx(one.mean() - other.mean()) == pytest.approx(-back.value)
    assert forth.low - 1e-9 <= forth.value <= forth.high + 1e-9


def test_differences_that_are_no_whole_numbers_are_drawn_as_they_are():
    fused, alone = np.array([1.0, 0.0] * 200), np.array([0.5, 0.5] * 200)
    difference = paired_difference(fused, alone, seed=0)
    assert difference.value == 0
    assert width(difference) == pytest.approx(2 * 1.96 * 0.5 / 400**0.5, rel=0.1)


def test_samples_are_drawn_apart_and_the_interval_is_theorys():
    rng = np.random.default_rng(1)
    known, unknown = rng.normal(1, 1, 400), rng.normal(0, 1, 300)
    found = resampled(auroc, known, unknown, seed=0)
    assert found.value == auroc(known, unknown)
    # Hanley and McNeil 1982.
    area = found.value
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 399 * (q1 - area**2) + 299 * (q2 - area**2)) / (400 * 300)
    assert width(found) == pytest.approx(2 * 1.96 * variance**0.5, rel=0.15)


def test_the_interval_of_a_gap_takes_off_what_chance_adds():
    rng = np.random.default_rng(0)

    def gap(sample):
        """Return the mean distance from 0 of the means of ten bins, all of which is chance."""
        return float(np.abs(sample.reshape(10, -1).mean(axis=1)).mean())

    found = resampled_gap(gap, rng.normal(0, 1, 400), seed=0)
    plain = resampled(gap, np.zeros(400) + rng.normal(0, 1, 400), seed=0)
    assert 0 <= found.low < found.value <= found.high < plain.high
    certain = resampled_gap(gap, np.full(400, 3.0), seed=0)
    assert (certain.value, certain.low, certain.high) == (3, 3, 3)


def test_intervals_repeat_and_depend_on_the_seed():
    photos = np.random.default_rng(0).random(200)
    first = resampled(np.mean, photos, seed=0)
    assert first == resampled(np.mean, photos, seed=0) != resampled(np.mean, photos, seed=1)
    right = photos > 0.3
    assert share(right, seed=0) == share(right, seed=0)
    assert paired_difference(right, photos, seed=0) == paired_difference(right, photos, seed=0)
