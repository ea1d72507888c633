import dataclasses
import functools
import math
import time
import timeit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.voting.answer import Answerer
from search_svc.voting.calibration import Calibration, Ece, LogisticModel
from search_svc.voting.labels import parse
from search_svc.voting.neighbours import QueryNeighbours

NAMES = [f"{make}_{model}_{year}" for make in ("honda", "ford") for model in "ab" for year in range(2001, 2005)]
LABELS = [parse(name) for name in [*NAMES, "misc"]]
CALIBRATION = Calibration(
    photos=200,
    k=5,
    temperature=0.1,
    prior=0.0,
    levels={
        "label": LogisticModel(-1.0, (0.8, 2.0, 1.0)),
        "model": LogisticModel(0.5, (0.5, -3.0, 1.0)),
        "make": LogisticModel(0.0, (1.0, 0.0, 0.0)),
    },
    known=LogisticModel(1.0, (10.0, 1.0)),
    known_offsets=(0.0, -0.5),
    false_alarm_rate=0.05,
    unknown_threshold=0.4,
    year_ratio=0.5,
    year_photos=0,
    typical={label.label: 0.7 for label in LABELS},
    errors={"label": Ece(0.1, 0.01)},
)

neighbours = st.lists(st.tuples(st.floats(-1, 1, width=32), st.sampled_from(LABELS)), max_size=8)
cars = st.lists(neighbours, max_size=4)
lines = st.builds(LogisticModel, st.floats(-9, 9), st.tuples(*[st.floats(-9, 9)] * 3))


def seen(pairs):
    return QueryNeighbours([], [label for _, label in pairs], [score for score, _ in pairs])


@pytest.fixture(scope="module")
def version(build_index):
    vectors = np.random.default_rng(0).normal(size=(len(LABELS), 4)).astype(np.float32)
    return build_index(vectors, names=[label.label for label in LABELS])


@pytest.fixture(scope="module")
def answerer(version):
    return functools.partial(_answerer, version)


def _answerer(version, **changes):
    return Answerer(dataclasses.replace(version, calibration=dataclasses.replace(CALIBRATION, **changes)))


def a(year, make="honda", model="a"):
    return parse(f"{make}_{model}_{year}")


def test_nothing_found_has_no_answer_and_no_scores(answerer):
    assert answerer().answer([]) is None
    assert answerer().answer([seen([])]) is None
    assert answerer().known_scores([seen([])]) == {}


def test_without_a_calibration_confidences_are_shares_and_there_is_no_verdict(version):
    answer = Answerer(version).answer([seen([(0.9, a(2001)), (0.9, a(2003))])])
    assert (answer.label_confidence, answer.model_confidence, answer.make_confidence) == (0.5, 1, 1)
    assert (answer.verdict, answer.known_score) == (None, None)
    assert "combined" not in Answerer(version).known_scores([seen([(0.9, a(2001))])])


def test_a_confidence_is_the_chance_by_the_share_the_closeness_and_the_number_of_photos(answerer):
    photo = seen([(0.9, a(2001)), (0.9, a(2003))])
    one, two = (answerer().answer([photo] * times) for times in (1, 2))
    assert one.label_confidence == pytest.approx(1 / (1 + math.exp(1.0 - 2.0 * 0.2)))
    assert two.label_confidence == pytest.approx(1 / (1 + math.exp(1.0 - 2.0 * 0.2 - math.log(2))))
    assert one.vote.label_confidence == 0.5, "the vote stays what it is"


def test_the_verdict_is_known_unsure_or_unknown(answerer):
    near, far = seen([(0.8, a(2001)), (0.8, a(2003))]), seen([(0.3, a(2001))])
    answers = answerer()
    confidence = answers.answer([near]).label_confidence
    assert answers.answer([near]).verdict == "known"
    assert answers.answer([near], min_confidence=confidence).verdict == "known", "as sure as was asked for"
    assert answers.answer([near], min_confidence=confidence + 1e-9).verdict == "unsure"
    assert answers.answer([far]).verdict == "unknown"
    assert answers.answer([far], min_confidence=1).verdict == "unknown"
    assert answers.answer([far]).vote.answer == a(2001), "the nearest label is given all the same"


def test_photos_without_a_car_are_unknown_however_near_their_neighbours_and_calibrated_or_not(answerer, version):
    near = seen([(0.8, a(2001))])
    without = dataclasses.replace(near, no_car_found=True)
    for answers in (answerer(), Answerer(version)):
        alone, with_car = answers.answer([without]), answers.answer([near])
        assert alone.verdict == answers.answer([without, without], min_confidence=0.0).verdict == "unknown"
        assert dataclasses.replace(alone, verdict=with_car.verdict) == with_car, "the nearest is given all the same"
        assert answers.answer([without, near]) == with_car, "one that shows the car is enough"


def test_a_photo_without_a_car_does_not_vote_beside_one_with_it(answerer, version):
    near, other = seen([(0.8, a(2001))]), seen([(0.9, a(2003, "ford"))])
    without = dataclasses.replace(other, no_car_found=True)
    for answers in (answerer(), Answerer(version)):
        assert answers.answer([near, without]) == answers.answer([near])
        assert answers.known_scores([near, without]) == answers.known_scores([near])
        assert answers.answer([near, other]) != answers.answer([near]), "it is left out for having no car"


def test_at_the_threshold_a_car_is_known(answerer):
    photo = seen([(0.6, a(2001))])
    score = answerer().answer([photo]).known_score
    assert answerer(unknown_threshold=score).answer([photo]).verdict == "known"
    assert answerer(unknown_threshold=math.nextafter(score, 1)).answer([photo]).verdict == "unknown"


def test_fused_photos_are_measured_with_the_offset_of_their_number_or_the_last(answerer):
    photo = seen([(0.6, a(2001))])
    logits = [1.0 - 10 * 0.1 + offset for offset in (0.0, -0.5, -0.5)]
    for times, logit in enumerate(logits, 1):
        assert answerer().answer([photo] * times).known_score == pytest.approx(1 / (1 + math.exp(-logit)))


def test_the_scores_to_compare_are_named_and_the_combined_one_decides(answerer):
    photo = seen([(0.8, a(2001)), (0.6, a(2001, "ford"))])
    scores = answerer().known_scores([photo])
    assert list(scores) == ["k-th similarity", "vote entropy", "combined"]
    assert scores["k-th similarity"] == 0.6
    assert scores["vote entropy"] < 0
    assert scores["combined"] == answerer().answer([photo]).known_score


def test_nearer_and_more_of_one_mind_is_more_surely_known(answerer):
    score = lambda *pairs: answerer().answer([seen(pairs)]).known_score  # noqa: E731
    assert score((0.8, a(2001))) > score((0.7, a(2001)))
    assert score((0.8, a(2001)), (0.8, a(2002))) > score((0.8, a(2001)), (0.8, a(2002, "ford")))


def test_a_range_of_years_is_as_sure_as_its_share_between_label_and_model(answerer):
    answer = answerer().answer([seen([(0.9, a(2002)), (0.9, a(2003)), (0.7, a(2001))])])
    assert answer.years == (2002, 2003)
    vote = answer.vote
    part = vote.label_confidence / (vote.model_confidence - vote.label_confidence)
    expected = answer.label_confidence + part * (answer.model_confidence - answer.label_confidence)
    assert answer.years_confidence == pytest.approx(expected)


def test_the_whole_model_is_as_sure_as_the_model_and_one_year_as_sure_as_the_label(answerer):
    whole = answerer().answer([seen([(0.9, a(2002)), (0.9, a(2003))])])
    assert whole.years_confidence == whole.model_confidence
    alone = answerer().answer([seen([(0.9, a(2002)), (0.7, a(2003))])])
    assert alone.years == (2002, 2002)
    assert alone.years_confidence == alone.label_confidence
    none = answerer().answer([seen([(0.9, parse("misc"))])])
    assert none.years is None
    assert none.years_confidence == none.label_confidence


@given(cars, st.fixed_dictionaries({"label": lines, "model": lines, "make": lines}), st.floats(0, 1), st.floats(0, 1))
def test_confidences_never_contradict_whatever_was_fitted(answerer, car, levels, ratio, least):
    answer = answerer(levels=levels, year_ratio=ratio).answer([seen(photo) for photo in car], least)
    if answer is None:
        assert not any(car)
        return
    confidences = (answer.label_confidence, answer.years_confidence, answer.model_confidence, answer.make_confidence)
    assert list(confidences) == sorted(confidences)
    assert confidences[0] >= 0
    assert confidences[-1] <= 1
    assert (answer.years is None) == (answer.vote.answer.year is None)
    if answer.years:
        assert answer.years[0] <= answer.vote.answer.year <= answer.years[1]


@given(cars, st.floats(0, 1))
def test_without_a_calibration_they_never_contradict_either(version, car, least):
    answer = Answerer(version).answer([seen(photo) for photo in car], least)
    if answer:
        confidences = (
            answer.label_confidence,
            answer.years_confidence,
            answer.model_confidence,
            answer.make_confidence,
        )
        assert list(confidences) == sorted(confidences)
        assert 0 <= confidences[0] <= confidences[-1] <= 1


@given(st.data(), cars)
def test_the_order_of_neighbours_and_photos_does_not_matter(answerer, data, car):
    shuffled = data.draw(st.permutations([data.draw(st.permutations(photo)) for photo in car]))
    one, other = (answerer().answer([seen(photo) for photo in each]) for each in (car, shuffled))
    assert one == other


def test_the_prior_comes_from_the_size_of_the_labels_in_the_gallery(build_index):
    names = ["honda_a_2001", *["honda_a_2002"] * 3]
    built = build_index(np.eye(4, dtype=np.float32), names=names)
    photo = seen([(0.5, a(2001)), (0.5, a(2002))])
    fitted = dataclasses.replace(CALIBRATION, prior=1.0)
    weighed = Answerer(dataclasses.replace(built, calibration=fitted)).answer([photo])
    assert weighed.vote.answer == a(2001)
    assert weighed.vote.label_confidence == pytest.approx(3 / 4)


@pytest.mark.no_cover
def test_an_answer_takes_well_under_a_millisecond(answerer):
    answers = answerer()
    pairs = [(0.9 - 0.01 * place, LABELS[place % len(LABELS)]) for place in range(30)]
    best = min(timeit.repeat(lambda: answers.answer([seen(pairs)]), timer=time.thread_time, number=20, repeat=10)) / 20
    assert best < 1e-3
