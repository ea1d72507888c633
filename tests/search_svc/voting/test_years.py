import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.voting.labels import Label, parse
from search_svc.voting.vote import elect
from search_svc.voting.years import Years

YEARS = (2001, 2002, 2005, 2006, 2007)
GALLERY = [parse(f"honda_pilot_{year}") for year in YEARS] + [parse("honda_civic_2003"), parse("misc")]


def votes(**weights):
    """Return votes for years of the Pilot, given as `y2001=3`."""
    return elect([(parse(f"honda_pilot_{name[1:]}"), weight) for name, weight in weights.items()])


def span(vote, ratio=0.5, gallery=GALLERY):
    found = Years(gallery).range(vote, ratio)
    return (found.first, found.last, found.years)


def test_a_year_that_stands_out_is_alone():
    assert span(votes(y2005=8, y2006=3, y2002=3)) == (2005, 2005, 1)


def test_adjacent_years_with_votes_enough_are_a_range_and_their_shares_add_up():
    found = Years(GALLERY).range(votes(y2005=4, y2006=3, y2007=1), 0.5)
    assert (found.first, found.last, found.years) == (2005, 2006, 2)
    assert found.share == pytest.approx(7 / 8)


def test_adjacent_is_what_follows_in_the_gallery():
    assert span(votes(y2002=4, y2005=3)) == (2002, 2005, 2)
    assert span(votes(y2001=4, y2005=4)) == (2001, 2001, 1), "2002 is between them, and has no votes"


def test_ranges_grow_both_ways_as_long_as_years_have_votes_enough():
    assert span(votes(y2001=3, y2002=3, y2005=5, y2006=3, y2007=3)) == (2001, 2007, 5)


def test_even_the_least_ratio_needs_votes():
    assert span(votes(y2005=1), ratio=0.0) == (2005, 2005, 1)


def test_no_year_no_range():
    assert Years(GALLERY).range(elect([(parse("misc"), 1.0)]), 0.5) is None


def test_years_of_other_models_do_not_count():
    vote = elect([(parse("honda_pilot_2002"), 5.0), (parse("honda_civic_2003"), 4.0)])
    assert span(vote) == (2002, 2002, 1)


def test_labels_of_one_year_share_it():
    twin = Label("pilot 2006, red", "honda", "pilot", 2006)
    vote = elect([(parse("honda_pilot_2005"), 4.0), (parse("honda_pilot_2006"), 1.5), (twin, 1.5)])
    found = Years([*GALLERY, twin]).range(vote, 0.7)
    assert (found.first, found.last) == (2005, 2006)
    assert found.share == pytest.approx(1)


def test_a_model_has_several_years_or_one():
    years = Years(GALLERY)
    assert years.several(parse("honda_pilot_2006"))
    assert not years.several(parse("honda_civic_2003"))
    assert not years.several(parse("misc"))


@given(
    st.lists(st.tuples(st.sampled_from(GALLERY), st.floats(0.01, 1)), min_size=1, max_size=8),
    st.floats(0, 2),
    st.floats(0, 2),
)
def test_a_range_holds_the_answers_year_and_shrinks_as_the_ratio_grows(ballots, one, other):
    vote = elect(ballots)
    wide, narrow = (Years(GALLERY).range(vote, ratio) for ratio in sorted((one, other)))
    if vote.answer.year is None:
        assert wide is None
        return
    assert wide.first <= narrow.first <= vote.answer.year <= narrow.last <= wide.last
    assert vote.label_confidence - 1e-9 <= narrow.share <= wide.share <= vote.model_confidence + 1e-9
