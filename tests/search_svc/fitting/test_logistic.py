import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.fitting import logistic


def sample(intercept, slopes, photos=20_000, seed=0):
    """Return features, and outcomes that a known logistic model draws."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(photos, len(slopes))) * [1, 5][: len(slopes)] + [0, 3][: len(slopes)]
    return features, rng.random(photos) < 1 / (1 + np.exp(-(intercept + features @ np.array(slopes))))


def test_the_line_that_made_the_sample_is_found():
    features, right = sample(-0.5, (1.5, -0.3))
    intercept, slopes = logistic.fit(features, right, (0.0, 0.0))
    assert (intercept, *slopes) == pytest.approx((-0.5, 1.5, -0.3), abs=0.1)


def test_few_photos_leave_the_slopes_near_what_they_were():
    features, right = sample(0.0, (3.0,), photos=8)
    for slope in (1.0, -1.0):
        assert logistic.fit(features, right, (slope,))[1][0] == pytest.approx(slope, abs=0.7)


def test_on_average_chances_are_as_often_right_as_they_say():
    features, right = sample(1.0, (2.0, 0.1), photos=500)
    intercept, slopes = logistic.fit(features, right, (1.0, 0.0))
    chances = 1 / (1 + np.exp(-(intercept + features @ np.array(slopes))))
    assert chances.mean() == pytest.approx(right.mean(), abs=0.01)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(-30, 30), st.floats(-100, 100), st.sampled_from([0.0, 1.0, 50.0]))
def test_it_always_ends_in_numbers(seed, intercept, slope, start):
    features, right = sample(intercept, (slope,), photos=30, seed=seed)
    fitted, slopes = logistic.fit(features, right, (start,))
    assert np.isfinite([fitted, *slopes]).all()


def test_features_that_part_right_from_wrong_do_not_run_away():
    features = np.linspace(-1, 1, 50)[:, None]
    _, (slope,) = logistic.fit(features, features[:, 0] > 0, (0.0,))
    assert 1 < slope < 20


def test_a_feature_that_never_varies_stays_as_it_was():
    features, right = sample(0.5, (1.0,), photos=200)
    _, slopes = logistic.fit(np.column_stack([features, np.full(200, 7.0)]), right, (1.0, 0.25))
    assert slopes[1] == 0.25


@pytest.mark.parametrize("right", [True, False])
def test_photos_that_are_all_right_or_all_wrong_promise_no_certainty(right):
    features = np.zeros((100, 1))
    intercept, _ = logistic.fit(features, np.full(100, right), (1.0,))
    assert 1 / (1 + np.exp(-intercept)) == pytest.approx(101 / 102 if right else 1 / 102, abs=1e-6)


def test_a_start_far_off_ends_in_the_same_place():
    features, right = sample(-0.5, (1.5, -0.3), photos=5000)
    near, far = (logistic.fit(features, right, start) for start in ((1.5, -0.3), (-40.0, 40.0)))
    assert near[1] == pytest.approx(far[1], abs=1.0)
