"""The sections of a report say what can be worked out by hand for a few photos."""

import dataclasses
import json

import numpy as np
import pytest

from search_svc.evaluation.report.confidence import chance_ece, confidences, thinned
from search_svc.evaluation.report.fusing import fused
from search_svc.evaluation.report.mistakes import confused, intruders, makes, worst, wrong
from search_svc.evaluation.report.table import table
from search_svc.evaluation.report.unknown import KNOWN, NOT_CARS, UNKNOWN, called_unknown, detections, distribution
from search_svc.fitting.calibration_metrics import ece
from search_svc.voting.answer import Answerer

A, B, C = "audi_a4_2011", "audi_a4_2012", "bmw_m3_2012"


def test_ece_is_told_of_shares_and_of_what_they_are_calibrated_to(examined):
    photos = [examined(A, *([A] * 5), confidence=0.75) for _ in range(3)] + [examined(A, *([C] * 5), confidence=0.75)]
    label = confidences(photos, [], calibrated=True, seed=0)[0]
    assert (label.level, label.photos) == ("label", 4)
    assert label.shares.ece.value == pytest.approx(0.25), "all votes for one label, and one of four wrong"
    assert label.calibrated.ece.value == pytest.approx(0)
    assert confidences(photos, [], calibrated=False, seed=0)[0].calibrated is None


def test_chance_alone_gives_an_ece_that_more_photos_take_away():
    rng = np.random.default_rng(0)
    few, many = (chance_ece(rng.random(photos), seed=0) for photos in (300, 30_000))
    assert few.low < few.value < few.high
    assert many.value == pytest.approx(few.value / 10, rel=0.2)
    confidence = rng.random(300)
    assert chance_ece(confidence, seed=0).low < ece(confidence, rng.random(300) < confidence) < few.high + 0.02
    assert chance_ece(np.ones(5), seed=0).value == 0, "what is certain is not left to chance"


def test_a_level_is_right_by_itself_and_years_are_of_the_model(examined):
    photos = [
        examined(A, B),
        examined(A, B, years=(2011, 2012)),
        examined(A, C, years=(2011, 2012)),
        examined("misc", A),
    ]
    found = {each.level: each for each in confidences(photos, [], calibrated=False, seed=0)}
    assert {level: each.photos for level, each in found.items()} == {"label": 4, "model": 4, "make": 4, "years": 3}
    assert {level: 1 - each.curve[-1].risk for level, each in found.items()} == {
        "label": 0,
        "model": 0.5,
        "make": 0.5,
        "years": pytest.approx(1 / 3),
    }


def test_the_share_of_years_is_summed_over_their_range(examined):
    photo = examined(A, A, A, B, C, years=(2011, 2012))
    (bin_of_years,) = confidences([photo], [], calibrated=False, seed=0)[-1].shares.bins
    assert bin_of_years.confidence == pytest.approx(3 / 4)


def test_a_cut_covers_what_is_confident_enough_and_lets_unknown_cars_pass(examined):
    photos = [examined(A, A, confidence=0.9), examined(A, C, confidence=0.9), examined(A, C, confidence=0.55)]
    strangers = [examined(C, A, known=False, confidence=0.7), examined(C, A, known=False, confidence=0.1)]
    label = confidences(photos, strangers, calibrated=True, seed=0)[0]
    cuts = {cut.confidence: cut for cut in label.cuts}
    assert (cuts[0].covers, cuts[0].right.value, cuts[0].unknown) == (1, pytest.approx(1 / 3), 1)
    assert (cuts[0.6].covers, cuts[0.6].right.value, cuts[0.6].unknown) == (pytest.approx(2 / 3), 0.5, 0.5)
    assert (cuts[0.9].covers, cuts[0.9].unknown) == (pytest.approx(2 / 3), 0)
    assert (cuts[0.95].covers, cuts[0.95].right) == (0, None)
    assert confidences(photos, [], calibrated=True, seed=0)[0].cuts[0].unknown is None


def test_a_photo_without_an_answer_is_wrong_without_confidence(examined):
    (label, *_) = confidences([examined(A, A), examined(A)], [], calibrated=False, seed=0)
    assert [(each.photos, each.confidence, each.right) for each in label.shares.bins] == [(1, 0, 0), (1, 1, 1)]


def test_curves_keep_their_ends():
    points = list(range(1000))
    assert len(thinned(points)) == 200
    assert (thinned(points)[0], thinned(points)[-1]) == (0, 999)
    assert thinned(points[:200]) == points[:200]


def test_unknown_cars_are_detected_by_each_score(examined):
    known = [examined(A, A, score=score) for score in (0.5, 0.7, 0.9)]
    unknown = [examined(C, A, known=False, score=score) for score in (0.6, 0.2)]
    (kind,) = detections(known, {UNKNOWN: unknown}, seed=0)
    assert (kind.kind, kind.photos, kind.labels) == (UNKNOWN, 2, 1)
    assert [each.score for each in kind.detectors] == ["combined", "k-th similarity"]
    for detector in kind.detectors:
        assert detector.auroc.value == pytest.approx(5 / 6)
        assert detector.fpr95.value == 0.5
        assert (detector.roc[0].fpr, detector.roc[0].tpr) == (0, 0)
        assert (detector.roc[-1].fpr, detector.roc[-1].tpr) == (1, 1)


def test_a_photo_near_which_nothing_was_found_is_the_least_known(examined):
    known = [examined(A, A, score=0.1), examined(A, A, score=0.2)]
    (kind,) = detections(known, {UNKNOWN: [examined(C, known=False)]}, seed=0)
    assert [detector.auroc.value for detector in kind.detectors] == [1, 1]
    found = distribution(known, {UNKNOWN: [examined(C, known=False)]}, 0.15)
    assert found.columns[UNKNOWN][0] == 1


def test_verdicts_are_counted(examined):
    photos = [examined(A, A, verdict=verdict) for verdict in ("known", "unknown", "unsure", "known")]
    assert called_unknown(photos, seed=0).value == 0.25
    assert called_unknown([*photos, examined(A)], seed=0).value == 0.4, "without an answer"
    assert called_unknown([examined(A, A)], seed=0) is None


def test_scores_are_spread_over_columns_as_shares_of_each_kind(examined):
    known = [examined(A, A, score=score) for score in (0.25, 1.0, 1.0, 1.0)]
    found = distribution(known, {NOT_CARS: [examined(C, A, known=False, score=0.0)]}, 0.4)
    assert (found.score, found.threshold) == ("combined", 0.4)
    assert len(found.edges) == len(found.columns[KNOWN]) + 1
    assert found.columns[KNOWN][-1] == 0.75
    assert found.columns[NOT_CARS][0] == 1
    assert distribution(known, {}, 0.4) is None


def test_photos_of_one_label_are_fused_and_each_photo_once(version, examined):
    answerer = Answerer(version)
    photos = [examined(A, A, item=f"a{n}", rows=[n]) for n in range(6)] + [examined(A, C, item="odd")]
    found = {(each.size, each.level): each for each in fused(photos, lambda _: answerer, seed=0)}
    assert {key: each.groups for key, each in found.items()} == {
        (size, level): 7 // size for size in (2, 3, 5) for level in ("label", "model", "make")
    }
    for each in found.values():
        assert each.gain.value == pytest.approx(each.fused.value - each.single)
        wrong_photos = (1 - each.single) * each.groups * each.size
        assert wrong_photos == pytest.approx(0, abs=1e-9) or wrong_photos == pytest.approx(1), (
            "the odd one is in one group"
        )


def test_groups_are_of_one_label(version, examined):
    answerer = Answerer(version)
    photos = [examined(label, label) for label in (A, B, C)] + [examined(C, C)]
    found = fused(photos, lambda _: answerer, seed=0)
    assert {(each.size, each.groups, each.fused.value) for each in found} == {(2, 1, 1)}


def test_two_photos_may_outvote_a_third(version, examined):
    answerer = Answerer(version)
    photos = [examined(A, A, A, C), examined(A, A, A, B), examined(A, C, C, A)]
    label = next(each for each in fused(photos, lambda _: answerer, seed=0) if each.size == 3)
    assert (label.single, label.fused.value, label.gain.value) == (pytest.approx(2 / 3), 1, pytest.approx(1 / 3))


def test_pairs_of_labels_count_both_ways(examined):
    photos = [examined(A, B), examined(B, A), examined(A, B), examined(A, C), examined(A, A), examined(C, C)]
    first, second = confused(photos)
    assert dataclasses.astuple(first) == (A, B, 2, 1, 4, 1)
    assert dataclasses.astuple(second) == (A, C, 1, 0, 4, 1)


def test_the_most_confident_mistakes_come_first_with_the_nearest_photo(version, examined):
    photos = [
        examined(A, C, item="sure.jpg", confidence=0.9, rows=[3]),
        examined(A, B, C, B, item="less.jpg", confidence=0.4, rows=[7, 1, 2]),
        examined(A, A, item="right.jpg", confidence=1.0),
        examined(A, item="nothing found.jpg"),
    ]
    first, second = worst(wrong(photos), version.items)
    assert dataclasses.astuple(first) == ("sure.jpg", A, C, 0.9, None, "photo 3.jpg", C)
    assert (second.item, second.answer, second.nearest_item) == ("less.jpg", B, "photo 7.jpg")


def test_intruders_are_unknown_cars_that_were_not_called_so(version, examined):
    photos = [examined(C, A, known=False, item=name, verdict=name) for name in ("known", "unknown", "unsure")]
    assert [each.item for each in intruders(photos, version.items)] == ["known", "unsure"]


def test_makes_come_by_their_photos(examined):
    photos = [examined(A, A), examined(B, A), examined(C, A), examined("misc", "misc")]
    audi, bmw, misc = makes(photos, seed=0)
    assert (audi.make, audi.photos, audi.labels, audi.label.value, audi.model, audi.make_right) == (
        "audi",
        2,
        2,
        0.5,
        1,
        1,
    )
    assert (bmw.make, bmw.label.value, bmw.make_right) == ("bmw", 0, 0)
    assert (misc.make, misc.label.value) == ("misc", 1)


def test_the_vote_is_compared_with_the_nearest_photo_photo_by_photo(examined, assembled):
    photos = [examined(A, C, A, A), examined(A, A, C, C), examined(A, C, A, A), examined(A, A), examined(A, C)]
    label = assembled(photos).vote_gain[0]
    assert (label.level, label.photos, label.won, label.lost, label.gain.value) == ("label", 5, 2, 1, 0.2)


def test_the_width_of_ranges_is_told(examined, assembled):
    photos = [examined(A, A, years=(2010, 2012)), examined(A, A), examined(A, "misc")]
    years = assembled(photos).years
    assert (years.photos, years.mean_width, years.wider) == (2, 2, 0.5)


def test_what_is_not_there_is_not_told(examined, assembled):
    report = assembled([examined("misc", "misc")])
    assert (report.years, report.false_alarms, report.distribution, report.calibration) == (None, None, None, None)
    assert report.unknown == report.fused == report.confused == report.worst == report.intruders == []
    json.dumps(dataclasses.asdict(report), allow_nan=False)
    assert "calibrated" not in table(report)


def test_the_key_figures_are_in_the_terminal(examined, assembled):
    known = [examined(A, A, confidence=0.8, verdict="known", score=0.9) for _ in range(6)]
    unknown = [examined(C, A, known=False, confidence=0.8, verdict="unknown", score=0.1)]
    text = table(assembled([*known, *unknown], unknown, calibrated=True))
    for figure in (
        "ECE, label                20.0 [20.0, 20.0]; of the shares 0.0 [0.0, 0.0]; by chance alone",
        "1 more have a label that the index does not have",
        "1 photos of labels that the gallery lacks",
        "1 photos of no cars",
        "known, called unknown     0.0",
        "  combined                AUROC 100.0 [100.0, 100.0], FPR95 0.0",
        "  called unknown          100.0",
        "3 photos of one car       100.0",
        "recall of the label       @1 100.0, @2 100.0",
    ):
        assert figure in text
