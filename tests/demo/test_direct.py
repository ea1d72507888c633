from dataclasses import replace

import pytest
import vmmr
from hypothesis import given
from hypothesis import strategies as st

from demo import answers, direct
from demo.servers import serving
from search_svc.voting import labels
from search_svc.voting.vote import elect, weights
from svckit.cli import CommandError

pytestmark = pytest.mark.xdist_group("demo")  # one worker builds the chain, once

CARS = ["lumen_arc_2020", "lumen_arc_2022", "lumen_ray_2020", "castell_page_2010", "castell_regent_2006", "junk"]


@pytest.fixture(scope="module")
def client(chain, tmp_path_factory):
    with (
        serving(tmp_path_factory.mktemp("servers"), chain.index) as pair,
        vmmr.Client(pair.embedder, pair.search) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def answered(client, chain):
    return answers.identify(client, chain.photos, chain.held_out())


def test_the_served_pair_answers_as_the_libraries_beneath_do(client, chain, answered, capsys):
    direct.compare(client, chain, answered)
    assert "4 photos: as embedded offline" in capsys.readouterr().out


def test_other_neighbours_are_noticed(client, chain, answered):
    first, second, *rest = answered
    swapped = [replace(first, found=second.found), replace(second, found=first.found), *rest]
    with pytest.raises(CommandError, match=f"direct neighbours of 2 photos differ, first of {first.path}"):
        direct.compare(client, chain, swapped)


def test_another_answer_is_noticed(client, chain, answered):
    first, *rest = answered
    other = next(each.found.answer for each in rest if each.found.answer != first.found.answer)
    wrong = replace(first, found=replace(first.found, answer=other))
    with pytest.raises(CommandError, match=f"direct answer of 1 photos differ, first of {first.path}"):
        direct.compare(client, chain, [wrong, *rest])


def test_another_embedding_is_noticed(client, chain, answered, monkeypatch):
    offline = direct._offline
    monkeypatch.setattr(direct, "_offline", lambda *arguments: offline(*arguments)[::-1])
    with pytest.raises(CommandError, match="direct embedding of 4 photos differ"):
        direct.compare(client, chain, answered)


def test_photos_that_are_as_near_as_each_other_may_change_places(answered):
    """But no others: where scores differ, the order is part of the answer."""
    first = answered[0]
    nearest = first.found.neighbours
    tied = [(each.item_id, labels.parse(each.label.label), nearest[0].score) for each in nearest[:2]]
    found = replace(first.found, neighbours=(replace(nearest[1], score=nearest[0].score), nearest[0]))
    assert direct._same_neighbours(replace(first, found=found), tied)
    untied = [tied[0], (*tied[1][:2], nearest[0].score - 0.1)]
    assert not direct._same_neighbours(replace(first, found=found), untied)


@given(
    st.lists(st.tuples(st.sampled_from(CARS), st.sampled_from([0.5, 0.6, 0.7, 0.75])), min_size=1, max_size=8),
    st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=len(CARS), max_size=len(CARS)),
)
def test_the_vote_by_hand_is_the_services_vote(neighbours, worth_of_labels):
    """Two ways to write one definition."""
    named = [(str(place), labels.parse(name), score) for place, (name, score) in enumerate(neighbours)]
    worth = dict(zip(CARS, worth_of_labels, strict=True))
    given_weights = weights([score for _, _, score in named], 0.05)
    voters = [(label, weight * worth[label.label]) for (_, label, _), weight in zip(named, given_weights, strict=True)]
    assert direct._vote(named, 0.05, worth).label == elect(voters).answer.label
