import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.fitting.weighing import (
    KS,
    MEAN_WEIGHTS,
    PRIORS,
    TEMPERATURES,
    Voters,
    fit_weighting,
    losses,
)
from search_svc.voting.evidence import VoteContext, gather
from search_svc.voting.labels import parse
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import Weighting, path

LABELS = [parse(f"{make}_{model}_{year}") for make in "ab" for model in "cd" for year in (2001, 2002)]
SIZES = [3, 30, 5, 50, 8, 80, 1, 10]


def asked(rng, photos, neighbours, right):
    """Return photos each of whose neighbours has the right label with probability `right`, and is then nearer."""
    truth = rng.integers(0, len(LABELS), photos)
    hit = rng.random((photos, neighbours)) < right
    positions = np.where(hit, truth[:, None], rng.integers(0, len(LABELS), (photos, neighbours)))
    scores = rng.random((photos, neighbours)) * 0.3 + 0.1 * hit
    order = np.argsort(-scores, axis=1)
    means = rng.random((photos, len(LABELS)))
    return voters(np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1), truth, means)


def voters(scores, positions, truth, means=None):
    """`means` are the cosines of each photo with the mean of each label."""
    means = np.zeros((len(truth), len(LABELS))) if means is None else means
    of = np.take_along_axis(means, positions, 1)
    return Voters(scores, positions, of, np.array(SIZES)[positions], truth)


@given(
    st.integers(0, 999),
    st.sampled_from(KS),
    st.floats(0.01, 1),
    st.sampled_from(PRIORS),
    st.sampled_from(MEAN_WEIGHTS),
)
def test_the_loss_is_the_brier_score_of_the_vote_that_is_served(seed, k, temperature, prior, mean_weight):
    of = asked(np.random.default_rng(seed), 3, 30, 0.5)
    weighting = Weighting(temperature, prior, mean_weight)
    scale = VoteContext(weighting, {label.label: n for label, n in zip(LABELS, SIZES, strict=True)}, {})
    expected = []
    for row, truth in enumerate(of.truth):
        labels = [LABELS[place] for place in of.positions[row, :k]]
        found = QueryNeighbours([], labels, of.scores[row, :k].tolist(), of.means[row, :k].tolist())
        vote = gather([found], scale).vote
        for depth, level in enumerate((vote.makes, vote.models, vote.labels), 1):
            shares = {
                (each.make, each.model, each.label.label if each.label else "")[:depth]: each.confidence
                for each in level
            }
            right = shares.pop(path(LABELS[truth])[:depth], 0.0)
            expected.append((1 - right) ** 2 + sum(share**2 for share in shares.values()))
    loss = losses(of, LABELS, k, [temperature], [mean_weight])[0, PRIORS.index(prior), 0]
    assert loss == pytest.approx(3 * np.mean(expected), abs=1e-5)


def test_where_all_neighbours_are_right_the_fewest_do():
    of = asked(np.random.default_rng(0), 200, 30, 1.0)
    assert fit_weighting(of, LABELS, 1.0, k=None, temperature=None)[0] == min(KS)


def test_where_each_neighbour_says_little_many_are_asked():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, len(LABELS), 1000)
    said = rng.integers(0, len(LABELS), (1000, 30))
    of = voters(np.zeros((1000, 30)), np.where(rng.random((1000, 30)) < 0.3, truth[:, None], said), truth)
    assert fit_weighting(of, LABELS, 1.0, k=None, temperature=None)[0] >= 20


def test_where_big_labels_crowd_out_small_ones_there_is_a_prior():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, len(LABELS), 2000)
    # Of 30 neighbours, those of the right label are twice as many as its size says, and no nearer.
    odds = np.array(SIZES) * (1 + 2.0 * np.eye(len(SIZES)))[truth]
    positions = np.array([rng.choice(len(LABELS), 30, p=each / each.sum()) for each in odds])
    of = voters(np.zeros((2000, 30)), positions, truth)
    assert fit_weighting(of, LABELS, 1.0, k=None, temperature=None)[1].prior > 0


def test_where_neighbours_say_nothing_and_means_all_the_means_decide():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, len(LABELS), 500)
    positions = rng.integers(0, len(LABELS), (500, 30))
    of = voters(np.zeros((500, 30)), positions, truth, np.eye(len(LABELS))[truth])
    assert fit_weighting(of, LABELS, 1.0, k=None, temperature=None)[1].mean_weight > 0
    nothing = voters(np.zeros((500, 30)), positions, truth, rng.random((500, len(LABELS))))
    assert fit_weighting(nothing, LABELS, 1.0, k=None, temperature=None)[1].mean_weight == 0


def test_temperatures_are_in_units_of_the_embeddings_squared_length():
    of = asked(np.random.default_rng(0), 300, 30, 0.5)
    longer = dataclasses.replace(of, scores=9 * of.scores)
    one, other = (fit_weighting(each, LABELS, unit, k=None, temperature=None) for each, unit in ((of, 1), (longer, 9)))
    assert other[0] == one[0]
    assert other[1].temperature == pytest.approx(9 * one[1].temperature)
    assert other[1].mean_weight == pytest.approx(9 * one[1].mean_weight)
    assert one[1].temperature in TEMPERATURES
    assert one[1].mean_weight in MEAN_WEIGHTS


def test_what_is_given_is_kept():
    of = asked(np.random.default_rng(0), 300, 30, 0.5)
    k, weighting = fit_weighting(of, LABELS, 1.0, k=4, temperature=0.123)
    assert (k, weighting.temperature) == (4, 0.123)


@pytest.mark.parametrize("score", [0.4, -np.inf])
def test_neighbours_that_are_missing_do_not_vote(score):
    of = voters(np.array([[0.5, 0.4, score]]), np.array([[0, 1, -1]]), np.array([0]))
    with_it, without = (losses(of, LABELS, k, [0.1], [0.0, 1.0]) for k in (3, 2))
    assert with_it.tolist() == without.tolist()
    assert np.isfinite(with_it).all()


def test_an_index_that_finds_fewer_than_any_k_is_fitted_with_what_it_finds():
    of = asked(np.random.default_rng(0), 100, 3, 0.9)
    assert fit_weighting(of, LABELS, 1.0, k=None, temperature=None)[0] == 3
