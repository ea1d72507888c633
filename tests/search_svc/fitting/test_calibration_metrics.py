"""Metrics against values worked out by hand, and against their definitions written out in full."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.fitting.calibration_metrics import (
    Bin,
    RiskAtCoverage,
    ThresholdRates,
    aurc,
    auroc,
    ece,
    fpr_at_tpr,
    reliability,
    risk_coverage,
    roc,
)

COARSE = st.integers(-8, 8).map(lambda value: value / 8)
SCORES = st.lists(COARSE, min_size=1, max_size=40).map(np.array)
ANSWERS = st.lists(st.tuples(st.integers(0, 16).map(lambda value: value / 16), st.booleans()), min_size=1, max_size=40)


def columns(answers):
    confidence, right = zip(*answers, strict=True)
    return np.array(confidence), np.array(right)


def test_ece_by_hand():
    # Bins (0.4, 0.467] and (0.867, 0.933]: 1/3 of the photos 0.45 off, 2/3 of them |0.9 - 0.5| off.
    confidence, right = np.array([0.45, 0.9, 0.9]), np.array([False, True, False])
    assert ece(confidence, right) == pytest.approx(0.45 / 3 + 0.4 * 2 / 3)


def test_bins_are_of_equal_width_and_hold_their_upper_edge():
    confidence = np.array([0.0, 1 / 15, 0.07, 0.9, 1.0])
    right = np.array([False, True, False, True, True])
    assert reliability(confidence, right) == [
        Bin(0, 1 / 15, 2, pytest.approx(1 / 30), 0.5),
        Bin(1 / 15, 2 / 15, 1, 0.07, 0),
        Bin(13 / 15, 14 / 15, 1, 0.9, 1),
        Bin(14 / 15, 1, 1, 1.0, 1),
    ]


def test_whoever_is_right_as_often_as_they_say_has_next_to_no_ece():
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    right = rng.random(200_000) < confidence
    assert ece(confidence, right) < 0.01
    assert ece(confidence**2, right) == pytest.approx(np.mean(confidence - confidence**2), abs=0.01)


@given(ANSWERS)
def test_ece_is_the_mean_gap_of_the_bins_weighted_by_their_photos(answers):
    confidence, right = columns(answers)
    bins = reliability(confidence, right)
    assert sum(each.photos for each in bins) == len(answers)
    assert all(each.low <= each.confidence <= each.high for each in bins)
    gaps = sum(each.photos * abs(each.right - each.confidence) for each in bins) / len(answers)
    assert ece(confidence, right) == pytest.approx(gaps)


def test_risk_and_coverage_by_hand():
    confidence, right = np.array([0.9, 0.5, 0.7, 0.5]), np.array([True, False, False, True])
    assert risk_coverage(confidence, right) == [
        RiskAtCoverage(0.9, 0.25, 0),
        RiskAtCoverage(0.7, 0.5, 0.5),
        RiskAtCoverage(0.5, 1, 0.5),
    ]
    # Risks of the 1, 2, 3, 4 most confident: 0, 1/2, (1 + 1/2) / 3, 2/4: the two of 0.5 are half wrong each.
    assert aurc(confidence, right) == pytest.approx((0 + 0.5 + 0.5 + 0.5) / 4)


@given(ANSWERS)
def test_aurc_is_the_mean_over_random_orders_of_what_ties(answers):
    confidence, right = columns(answers)
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(300):
        order = np.lexsort((rng.random(len(right)), -confidence))
        areas.append(np.mean(np.cumsum(~right[order]) / np.arange(1, len(right) + 1)))
    assert aurc(confidence, right) == pytest.approx(np.mean(areas), abs=4 * np.std(areas) / 300**0.5 + 1e-9)


@given(ANSWERS)
def test_the_risk_of_everything_is_the_share_of_mistakes_and_the_best_order_has_the_least_area(answers):
    confidence, right = columns(answers)
    curve = risk_coverage(confidence, right)
    assert (curve[-1].coverage, curve[-1].risk) == (1, pytest.approx(1 - right.mean()))
    assert [point.confidence for point in curve] == sorted(set(confidence), reverse=True)
    for point in curve:
        taken = confidence >= point.confidence
        assert (point.coverage, point.risk) == pytest.approx((taken.mean(), 1 - right[taken].mean()))
    assert (
        aurc(right.astype(float), right) <= aurc(confidence, right) + 1e-12 <= aurc(-right.astype(float), right) + 2e-12
    )


def test_auroc_by_hand():
    known, unknown = np.array([3.0, 2.0, 1.0]), np.array([2.0, 0.0])
    # Pairs: 3 beats both, 2 ties and beats, 1 loses and beats.
    assert auroc(known, unknown) == pytest.approx((2 + 1.5 + 1) / 6)
    assert roc(known, unknown) == [
        ThresholdRates(3, pytest.approx(1 / 3), 0),
        ThresholdRates(2, pytest.approx(2 / 3), 0.5),
        ThresholdRates(1, 1, 0.5),
        ThresholdRates(0, 1, 1),
    ]


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_the_right_order(known, unknown):
    pairs = known[:, None] - unknown[None, :]
    assert auroc(known, unknown) == pytest.approx(np.mean((pairs > 0) + (pairs == 0) / 2))
    assert auroc(known, unknown) == pytest.approx(1 - auroc(unknown, known))


@given(SCORES, SCORES)
def test_detection_figures_depend_on_the_order_of_scores_alone(known, unknown):
    for figure in (auroc, fpr_at_tpr):
        assert figure(np.exp(3 * known), np.exp(3 * unknown)) == figure(known, unknown)


@given(SCORES, SCORES)
def test_auroc_is_the_area_under_the_roc(known, unknown):
    points = [(0.0, 0.0), *((rates.fpr, rates.tpr) for rates in roc(known, unknown))]
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(points))
    assert auroc(known, unknown) == pytest.approx(area)


def test_fpr95_by_hand():
    known = np.arange(1, 21) / 20  # 19 of 20 are 0.1 or more
    assert fpr_at_tpr(known, np.array([0.05, 0.09, 0.1, 0.5])) == 0.5, "a score equal to the threshold is accepted"
    assert fpr_at_tpr(known, np.array([2.0])) == 1
    assert fpr_at_tpr(known[:1], np.array([0.01])) == 0


@given(SCORES, SCORES, st.sampled_from([0.5, 0.95, 1.0]))
def test_fpr_is_the_least_that_any_threshold_accepting_enough_known_cars_has(known, unknown, tpr):
    enough = [rates.fpr for rates in roc(known, unknown) if rates.tpr >= tpr - 1e-9]
    assert fpr_at_tpr(known, unknown, tpr) == pytest.approx(min(enough))
