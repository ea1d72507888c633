import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from search_svc.voting.labels import parse
from search_svc.voting.vote import elect, weights

PILOT_2011, PILOT_2012 = parse("honda_pilot_2011"), parse("honda_pilot_2012")
CIVIC, CAMRY = parse("honda_civic_2005"), parse("toyota_camry_2007")
UNPARSED = parse("misc")
LABELS = (PILOT_2011, PILOT_2012, CIVIC, CAMRY, UNPARSED, parse("garage"), parse("honda"))

neighbours = st.lists(st.tuples(st.floats(-1, 1, width=32), st.sampled_from(LABELS)), min_size=1, max_size=12)
temperatures = st.floats(1e-3, 1e3)


def vote(neighbours, temperature=1.0):
    given = weights([score for score, _ in neighbours], temperature)
    return elect([(label, weight) for (_, label), weight in zip(neighbours, given, strict=True)])


def test_without_neighbours_there_is_no_vote():
    assert vote([]) is None


def test_weights_fall_by_e_for_each_temperature_of_score():
    result = vote([(0.9, CAMRY), (0.8, CIVIC)], temperature=0.1)
    assert result.make_confidence == pytest.approx(math.e / (math.e + 1))


def test_a_make_outweighs_the_nearest_photo_of_another():
    result = vote([(0.9, CAMRY), (0.88, PILOT_2011), (0.87, PILOT_2012), (0.86, CIVIC)], temperature=0.1)
    assert result.answer == PILOT_2011
    assert [candidate.make for candidate in result.makes] == ["honda", "toyota"]


def test_the_answer_follows_the_heaviest_make_even_where_another_label_is_heavier():
    result = vote([(0.9, CAMRY), (0.88, PILOT_2011), (0.87, CIVIC)], temperature=0.1)
    assert result.labels[0].label == CAMRY
    assert result.answer == PILOT_2011


def test_equal_weights_are_ordered_by_name():
    result = vote([(0.5, CAMRY), (0.5, CIVIC)])
    assert [candidate.make for candidate in result.makes] == ["honda", "toyota"]


def test_a_label_that_could_not_be_parsed_is_a_make_of_its_own():
    result = vote([(0.5, UNPARSED), (0.4, parse("garage")), (0.4, CAMRY)])
    assert result.answer == UNPARSED
    assert [candidate.make for candidate in result.makes] == ["misc", "garage", "toyota"]
    assert [candidate.model for candidate in result.models] == ["", "", "camry"]


def test_far_neighbours_may_weigh_nothing():
    result = vote([(0.0, CAMRY), (-1e30, CIVIC)], temperature=1e-3)
    assert [candidate.confidence for candidate in result.makes] == [1.0, 0.0]


@given(neighbours, temperatures)
def test_the_levels_never_contradict(neighbours, temperature):
    result = vote(neighbours, temperature)
    assert result.answer in [label for _, label in neighbours]
    assert 0 <= result.label_confidence <= result.model_confidence <= result.make_confidence <= 1 + 1e-12
    assert result.makes[0].make == (result.answer.make or result.answer.label)


@given(neighbours, temperatures)
def test_every_level_shares_the_whole_vote_heaviest_first(neighbours, temperature):
    result = vote(neighbours, temperature)
    for level in (result.makes, result.models, result.labels):
        assert sum(candidate.confidence for candidate in level) == pytest.approx(1)
        assert all(first.confidence >= second.confidence for first, second in pairwise(level))


@given(st.data(), neighbours, temperatures)
def test_the_order_of_the_neighbours_does_not_matter(data, neighbours, temperature):
    shuffled = data.draw(st.permutations(neighbours))
    assert vote(shuffled, temperature) == vote(neighbours, temperature)


@given(neighbours, st.sampled_from(LABELS), st.floats(0, 1))
def test_one_more_vote_for_a_label_never_lowers_its_share(neighbours, label, score):
    assume(score <= max(score for score, _ in neighbours))
    before = {candidate.label: candidate.confidence for candidate in vote(neighbours).labels}
    after = {candidate.label: candidate.confidence for candidate in vote([*neighbours, (score, label)]).labels}
    assert after[label] >= before.get(label, 0) - 1e-12


@given(neighbours, st.floats(-100, 100, width=32))
def test_only_differences_of_scores_matter(neighbours, shift):
    moved = vote([(score + shift, label) for score, label in neighbours])
    assert moved.make_confidence == pytest.approx(vote(neighbours).make_confidence)
