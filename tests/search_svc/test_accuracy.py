import pytest

from search_svc.accuracy import LEVELS, MEASURES, Answer, Tally, distinct
from search_svc.labels import parse
from search_svc.vote import vote

PILOT_2011, PILOT_2012 = parse("honda_pilot_2011"), parse("honda_pilot_2012")
CIVIC, CAMRY, MISC = parse("honda_civic_2005"), parse("toyota_camry_2011"), parse("misc")


def answer(*neighbours, classes=(), temperature=1.0):
    """Neighbours with scores 0.9, 0.8, ..."""
    scores = [0.9 - 0.1 * place for place in range(len(neighbours))]
    return Answer(neighbours, [*neighbours, *classes], vote(scores, neighbours, temperature))


def right(truth, given: Answer) -> dict[str, set[str]]:
    """For each level, the measures by which the answer is right."""
    tally = Tally()
    tally.add(truth, given)
    found = {level: set() for level in LEVELS}
    for score in tally.scores(seed=0):
        if score.value == 1:
            found[score.level].add(score.measure)
    return found


def test_the_nearest_photo_decides_top_1():
    found = right(PILOT_2011, answer(PILOT_2011, CAMRY, CAMRY, CAMRY, temperature=100))
    assert "nearest, top-1" in found["label"]
    assert "vote, top-1" not in found["label"]


def test_the_vote_may_know_better_than_the_nearest_photo():
    found = right(CAMRY, answer(PILOT_2011, CAMRY, CAMRY, CAMRY, temperature=100))
    assert "nearest, top-1" not in found["label"]
    assert "vote, top-1" in found["label"]


def test_top_5_images_counts_photos_and_top_5_classes_counts_classes():
    given = answer(CIVIC, CIVIC, CIVIC, CIVIC, CIVIC, classes=[PILOT_2012, MISC, CAMRY, PILOT_2011, parse("last")])
    assert right(PILOT_2011, given)["label"] == {"nearest, top-5 classes"}
    assert right(parse("last"), given)["label"] == set()


def test_every_level_is_judged_by_itself():
    found = right(PILOT_2011, answer(PILOT_2012))
    assert found == {"label": set(), "model": set(MEASURES), "make": set(MEASURES), "year": set()}
    assert right(PILOT_2011, answer(CAMRY))["year"] == set(MEASURES)


def test_a_label_that_could_not_be_parsed_is_a_class_of_its_own_at_every_level_but_the_year():
    found = right(MISC, answer(MISC))
    assert found == {"label": set(MEASURES), "model": set(MEASURES), "make": set(MEASURES), "year": set()}


def test_a_candidate_without_a_year_takes_no_place_among_the_years():
    years = [parse(f"honda_pilot_{year}") for year in (2011, 2010, 2009, 2008, 2007, 2006)]
    given = answer(years[0], MISC, *years[1:])
    assert "vote, top-5 classes" in right(years[4], given)["year"]
    assert "vote, top-5 classes" not in right(years[5], given)["year"]


def test_photos_without_a_year_are_not_counted_among_the_years():
    tally = Tally()
    for truth in (MISC, PILOT_2011):
        tally.add(truth, answer(MISC))
    assert {score.level: score.photos for score in tally.scores(seed=0)} == {
        "label": 2,
        "model": 2,
        "make": 2,
        "year": 1,
    }


def test_the_answer_comes_first_among_the_candidates_of_the_vote():
    given = answer(CAMRY, PILOT_2011, CIVIC, temperature=1.0)
    assert given.vote.labels[0].label == CAMRY
    assert right(PILOT_2011, given)["label"] >= {"vote, top-1", "vote, top-5 classes"}
    assert "vote, top-5 classes" in right(CAMRY, given)["label"]


def test_without_an_answer_nothing_is_right():
    assert right(CAMRY, Answer([], [], None)) == {level: set() for level in LEVELS}


def test_at_most_five_distinct_classes_are_taken_in_order_and_none_is_none_of_them():
    labels = [MISC, CIVIC, CIVIC, PILOT_2011, CAMRY, PILOT_2012, *(parse(f"a_b_{year}") for year in (1999, 2000, 2001))]
    assert distinct(labels, "year") == [2005, 2011, 2012, 1999, 2000]


def test_intervals_hold_the_value_shrink_with_more_photos_and_repeat():
    def score(photos):
        tally = Tally()
        for photo in range(photos):
            tally.add(CAMRY, answer(CAMRY if photo % 2 else CIVIC))
        return tally.scores(seed=0)[0]

    few, many = score(50), score(5000)
    assert few.low < few.value == 0.5 < few.high
    assert (many.high - many.low) == pytest.approx(2 * 1.96 * (0.25 / 5000) ** 0.5, rel=0.05)
    assert score(50) == few
    assert few.high - few.low > 5 * (many.high - many.low)
