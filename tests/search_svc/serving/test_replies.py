"""Answers as messages: what holds for an answer, holds for what is sent."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmmr.search.v1 import search_pb2

from search_svc.serving.replies import Replies, merge_neighbours
from search_svc.voting.answer import Answer, Answerer
from search_svc.voting.neighbours import QueryNeighbours

LABELS = ["kia_rio_2010", "kia_rio_2011", "kia_rio_2012", "kia_ceed_2012", "honda_pilot_2011", "misc"]
PHOTOS = 24


@pytest.fixture(scope="module")
def version(build_index, tmp_path_factory):
    vectors = np.random.default_rng(0).standard_normal((PHOTOS, 8)).astype(np.float32)
    names = [LABELS[row % len(LABELS)] for row in range(PHOTOS)]
    return build_index(vectors, names=names, directory=tmp_path_factory.mktemp("index"))


MEANS = (0.75, 0.5, -0.25, 0.0)
"""The cosines with the means of the first labels; of further ones they are these again."""
scores = st.floats(-1, 1, width=32)


@st.composite
def cars(draw):
    """Rows and scores of the neighbours of some photos, each nearest first."""
    photos = draw(st.lists(st.dictionaries(st.integers(0, PHOTOS - 1), scores, max_size=8), min_size=1, max_size=4))
    return [sorted(photo.items(), key=lambda hit: (-hit[1], hit[0])) for photo in photos]


def found(version, photo):
    labels = version.items.labels
    return QueryNeighbours(
        [row for row, _ in photo],
        [labels[version.items.label_of[row]] for row, _ in photo],
        [score for _, score in photo],
        [MEANS[version.items.label_of[row] % len(MEANS)] for row, _ in photo],
    )


def classification(version, photos, answer):
    """The entry of one car."""
    (result,) = Replies(version).classify([photos], [answer]).results
    return result


def sent(version, found):
    """What a reply says of the neighbours of one query, looked up one by one."""
    hits = zip(found.rows, found.labels, found.scores, strict=True)
    return [
        (version.items.item_id(row), version.items.uri(row), label.label, label.make, label.model, label.year, score)
        for row, label, score in hits
    ]


def received(neighbours):
    def year(label):
        return label.year if label.HasField("year") else None

    return [
        (each.item_id, each.uri, each.label.label, each.label.make, each.label.model, year(each.label), each.score)
        for each in neighbours
    ]


@given(photos=cars())
def test_each_query_gets_its_own_neighbours_in_their_order(version, photos):
    queries = [found(version, photo) for photo in photos]
    results = Replies(version).search(queries).results
    assert [received(each.neighbours) for each in results] == [sent(version, query) for query in queries]


@given(photos=cars())
def test_each_car_gets_its_own_answer_and_evidence(version, photos):
    cars = [[found(version, photo)] for photo in photos]
    answers = [Answerer(version).answer(car) for car in cars]
    results = Replies(version).classify(cars, answers).results
    assert list(results) == [classification(version, *each) for each in zip(cars, answers, strict=True)]
    assert [received(each.neighbours) for each in results] == [sent(version, car) for (car,) in cars]


@given(car=cars())
def test_each_label_tells_the_score_of_its_nearest_photo_and_its_mean_and_no_make_or_model_does(version, car):
    photos = [found(version, photo) for photo in car]
    message = classification(version, photos, Answerer(version).answer(photos))
    for candidate in message.labels:
        of_label = [score for row, score in itertools.chain(*car) if LABELS[row % len(LABELS)] == candidate.label.label]
        assert candidate.nearest_score == max(of_label)
        position = [label.label for label in version.items.labels].index(candidate.label.label)
        assert candidate.mean_similarity == MEANS[position % len(MEANS)]
    assert not any(each.HasField("nearest_score") for each in (*message.makes, *message.models))


@given(car=cars())
def test_evidence_is_each_neighbour_once_with_its_best_score_nearest_first(version, car):
    merged = merge_neighbours([found(version, photo) for photo in car])
    hits = list(itertools.chain(*car))
    assert set(merged.rows) == {row for row, _ in hits}
    assert merged.scores == [max(score for other, score in hits if other == row) for row in merged.rows]
    order = [(-score, row) for row, score in zip(merged.rows, merged.scores, strict=True)]
    assert order == sorted(set(order))
    assert [label.label for label in merged.labels] == [
        version.items.labels[version.items.label_of[row]].label for row in merged.rows
    ]


@pytest.fixture(params=[False, True], ids=["shares", "calibrated"], scope="module")
def either(request, version, calibrated):
    """A version that is not calibrated, and one that is."""
    return calibrated.version if request.param else version


@given(car=cars())
def test_levels_never_contradict_each_other_on_the_wire(either, car):
    photos = [found(either, photo) for photo in car]
    message = classification(either, photos, Answerer(either).answer(photos))
    if not any(car):
        assert message == search_pb2.Classification()
        return
    assert 0 <= message.label_confidence <= message.years_confidence <= message.model_confidence
    assert message.model_confidence <= message.make_confidence <= 1
    if message.answer.HasField("year"):
        assert message.first_year <= message.answer.year <= message.last_year
    assert message.HasField("first_year") == message.HasField("last_year") == message.answer.HasField("year")
    assert message.HasField("known_score") == bool(message.verdict) == (either.calibration is not None)


levels = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(sorted)


@given(
    confidences=levels,
    verdict=st.sampled_from(["known", "unsure", "unknown"]),
    score=st.floats(-1e3, 1e3, width=32),
    years=st.none() | st.tuples(st.integers(1900, 2030), st.integers(0, 9)).map(lambda y: (y[0], sum(y))),
)
def test_all_that_an_answer_says_is_sent(version, confidences, verdict, score, years):
    photos = [found(version, [(4, 0.9), (1, 0.5)])]
    vote = Answerer(version).answer(photos).vote
    label, range_, model, make = confidences
    message = classification(version, photos, Answer(vote, make, model, label, verdict, score, years, range_))
    sent = [message.label_confidence, message.years_confidence, message.model_confidence, message.make_confidence]
    assert sent == pytest.approx(confidences)
    assert sent == sorted(sent)
    assert message.verdict == search_pb2.Verdict.Value(f"VERDICT_{verdict.upper()}")
    assert message.HasField("known_score")
    assert message.known_score == score
    assert (message.HasField("first_year"), message.HasField("last_year")) == (bool(years), bool(years))
    assert years is None or (message.first_year, message.last_year) == years
    assert message.answer.label == vote.answer.label
    assert [each.confidence for each in message.labels] == pytest.approx([each.confidence for each in vote.labels])


def test_an_answer_without_calibration_has_no_known_score_and_no_verdict(version):
    photos = [found(version, [(5, 0.9)])]
    message = classification(version, photos, Answerer(version).answer(photos))
    assert message.answer.label == "misc"
    assert not message.HasField("known_score")
    assert message.verdict == search_pb2.VERDICT_UNSPECIFIED
