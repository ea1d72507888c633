import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.voting.evidence import VoteContext, gather
from search_svc.voting.labels import parse
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import Weighting, elect, weights

PILOT_2011, PILOT_2012 = parse("honda_pilot_2011"), parse("honda_pilot_2012")
CIVIC, CAMRY = parse("honda_civic_2005"), parse("toyota_camry_2007")
LABELS = (PILOT_2011, PILOT_2012, CIVIC, CAMRY)
SIZES = {label.label: size for label, size in zip(LABELS, (10, 20, 40, 5), strict=True)}
TYPICAL = {label.label: near for label, near in zip(LABELS, (0.8, 0.7, 0.9, 0.6), strict=True)}

photos = st.lists(st.tuples(st.floats(-1, 1, width=32), st.sampled_from(LABELS)), min_size=1, max_size=8)
cars = st.lists(photos, min_size=1, max_size=4)
scales = st.builds(
    lambda temperature, prior: VoteContext(Weighting(temperature, prior), SIZES, TYPICAL),
    st.floats(0.01, 2),
    st.floats(0, 1),
)


def seen(neighbours):
    return QueryNeighbours([], [label for _, label in neighbours], [score for score, _ in neighbours])


def scale(temperature=0.1, prior=0.0):
    return VoteContext(Weighting(temperature, prior), SIZES, TYPICAL)


def test_nothing_found_is_no_evidence():
    assert gather([], scale()) is None
    assert gather([seen([]), seen([])], scale()) is None


def test_the_vote_of_one_photo_is_that_of_its_neighbours():
    neighbours = [(0.9, CAMRY), (0.85, PILOT_2011), (0.8, PILOT_2012)]
    given_weights = weights([score for score, _ in neighbours], 0.1)
    expected = elect([(label, weight) for (_, label), weight in zip(neighbours, given_weights, strict=True)])
    given_ = gather([seen(neighbours)], scale()).vote
    assert given_.answer == expected.answer
    assert [each.confidence for each in given_.labels] == pytest.approx([each.confidence for each in expected.labels])


def test_every_photo_has_one_vote_however_near_its_neighbours_are():
    evidence = gather([seen([(0.9, CAMRY)]), seen([(0.5, CIVIC)]), seen([(0.2, CIVIC), (0.1, CIVIC)])], scale(0.01))
    assert evidence.photos == 3
    assert evidence.vote.answer == CIVIC
    assert evidence.vote.label_confidence == pytest.approx(2 / 3)


def test_a_photo_without_neighbours_does_not_count():
    evidence = gather([seen([(0.9, CAMRY)]), seen([])], scale())
    assert evidence.photos == 1
    assert evidence.vote.label_confidence == 1


def test_the_prior_makes_labels_of_many_photos_weigh_less():
    neighbours = [(0.5, CIVIC), (0.5, CAMRY)]
    assert gather([seen(neighbours)], scale()).vote.answer == CIVIC  # by name
    weighed = gather([seen(neighbours)], scale(prior=1.0)).vote
    assert weighed.answer == CAMRY
    assert weighed.label_confidence == pytest.approx(40 / 45)


def test_the_mean_of_a_label_lifts_each_of_its_neighbours():
    neighbours, means = [(0.5, CIVIC), (0.4, CAMRY), (0.4, CIVIC)], [0.1, 0.4, 0.1]
    photo = dataclasses.replace(seen(neighbours), means=means)
    lifted = [score + 2 * mean for (score, _), mean in zip(neighbours, means, strict=True)]
    expected = elect([(label, w) for (_, label), w in zip(neighbours, weights(lifted, 0.1), strict=True)])
    context = VoteContext(Weighting(0.1, mean_weight=2.0), SIZES, TYPICAL)
    found = gather([photo], context).vote
    assert found.answer == CAMRY != gather([photo], scale()).vote.answer
    assert [each.confidence for each in found.labels] == pytest.approx([each.confidence for each in expected.labels])
    with pytest.raises(ValueError, match="zip"):
        gather([seen(neighbours)], context)  # no answer without what was to count


def test_what_tells_known_cars_is_of_the_label_that_each_photo_elects():
    one = dataclasses.replace(seen([(0.9, CAMRY), (0.5, CIVIC)]), means=[0.75, 0.25])
    other = dataclasses.replace(seen([(0.6, PILOT_2011), (0.6, CIVIC), (0.6, CIVIC)]), means=[0.9, 0.5, 0.5])
    evidence = gather([one, other], scale())
    assert evidence.mean == pytest.approx((0.75 + 0.5) / 2)
    assert evidence.log_size == pytest.approx((math.log(5) + math.log(40)) / 2)
    assert evidence.known_features[2:] == (evidence.mean, -evidence.log_size)


def test_closeness_is_the_nearest_score_beyond_what_is_typical_of_its_label():
    evidence = gather([seen([(0.85, CIVIC), (0.8, CAMRY)]), seen([(0.5, CAMRY)])], scale())
    assert evidence.closeness == pytest.approx(((0.85 - 0.9) + (0.5 - 0.6)) / 2)
    assert evidence.farthest == pytest.approx((0.8 + 0.5) / 2)


def test_of_labels_that_tie_for_the_nearest_the_least_flattering_counts():
    for neighbours in ([(0.5, CIVIC), (0.5, CAMRY)], [(0.5, CAMRY), (0.5, CIVIC)]):
        assert gather([seen(neighbours)], scale()).closeness == pytest.approx(0.5 - 0.9)


def test_entropy_is_nought_where_all_agree_and_the_logarithm_of_how_many_share_alike():
    alike = gather([seen([(0.5, PILOT_2011), (0.5, PILOT_2012)])], scale())
    assert alike.make_entropy == 0
    assert alike.label_entropy == pytest.approx(math.log(2))
    assert gather([seen([(0.5, PILOT_2011), (0.5, CAMRY)])], scale()).make_entropy == pytest.approx(math.log(2))


@given(st.data(), cars, scales)
def test_the_order_of_neighbours_and_of_photos_does_not_matter(data, car, scale):
    shuffled = data.draw(st.permutations([data.draw(st.permutations(photo)) for photo in car]))
    assert gather([seen(photo) for photo in shuffled], scale) == gather([seen(photo) for photo in car], scale)


@given(photos, scales, st.integers(2, 4))
def test_the_same_photo_again_says_nothing_new(photo, scale, times):
    once, again = gather([seen(photo)], scale), gather([seen(photo)] * times, scale)
    assert again.vote.answer == once.vote.answer
    assert again.vote.label_confidence == pytest.approx(once.vote.label_confidence)
    assert again.closeness == pytest.approx(once.closeness)


@given(cars, scales)
def test_the_levels_never_contradict(car, scale):
    result = gather([seen(photo) for photo in car], scale).vote
    assert 0 <= result.label_confidence <= result.model_confidence <= result.make_confidence <= 1
    for level in (result.makes, result.models, result.labels):
        assert math.fsum(candidate.confidence for candidate in level) == pytest.approx(1)
