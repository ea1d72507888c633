import pytest

from search_svc.evaluation.accuracy import CLASSES, MEASURES, WITHIN, distinct, outcomes, recalls, scores
from search_svc.voting.answer import Answer
from search_svc.voting.labels import parse
from search_svc.voting.vote import elect, weights

PILOT_2011, PILOT_2012 = parse("honda_pilot_2011"), parse("honda_pilot_2012")
CIVIC, CAMRY, MISC = parse("honda_civic_2005"), parse("toyota_camry_2011"), parse("misc")


def answer(*labels, temperature=1.0, years=None):
    """Return the answer from neighbours with the scores 0.9, 0.8, ..."""
    given = weights([0.9 - 0.1 * place for place in range(len(labels))], temperature)
    voted = elect(list(zip(labels, given, strict=True)))
    year = voted.answer.year
    return Answer(voted, 1.0, 1.0, 1.0, None, None, years or (year and (year, year)), 1.0)


def right(truth, *neighbours, classes=(), **how) -> dict[str, set[str]]:
    """Return, for each level, the measures by which the answer is right."""
    given = answer(*neighbours, **how) if neighbours else None
    found = {level: set() for level in CLASSES}
    for (level, measure), hit in outcomes(truth, [*neighbours, *classes], given).items():
        if hit:
            found[level].add(measure)
    return found


def test_the_nearest_photo_decides_top_1():
    found = right(PILOT_2011, PILOT_2011, CAMRY, CAMRY, CAMRY, temperature=100)
    assert "nearest, top-1" in found["label"]
    assert "vote, top-1" not in found["label"]


def test_the_vote_may_know_better_than_the_nearest_photo():
    found = right(CAMRY, PILOT_2011, CAMRY, CAMRY, CAMRY, temperature=100)
    assert "nearest, top-1" not in found["label"]
    assert "vote, top-1" in found["label"]


def test_top_5_images_counts_photos_and_top_5_classes_counts_classes():
    civics, others = [CIVIC] * 5, [PILOT_2012, MISC, CAMRY, PILOT_2011, parse("last")]
    assert right(PILOT_2011, *civics, classes=others)["label"] == {"nearest, top-5 classes"}
    assert right(parse("last"), *civics, classes=others)["label"] == set()


def test_every_level_is_judged_by_itself():
    found = right(PILOT_2011, PILOT_2012)
    everything = set(MEASURES) - {WITHIN}
    assert found == {"label": set(), "model": everything, "make": everything, "year": set()}
    assert right(PILOT_2011, CAMRY) == {"label": set(), "model": set(), "make": set(), "year": set(MEASURES)}


def test_a_range_of_years_is_right_if_it_holds_the_year():
    for years, hit in (((2011, 2012), True), ((2010, 2011), True), ((2012, 2013), False), ((2009, 2010), False)):
        found = right(PILOT_2011, PILOT_2012, years=years)
        assert [WITHIN in found[level] for level in ("label", "year")] == [hit, hit]
    found = right(PILOT_2011, CAMRY, years=(2010, 2012))
    assert WITHIN in found["year"]
    assert WITHIN not in found["label"], "the year is right of another model"


def test_a_label_that_could_not_be_parsed_is_a_class_of_its_own_at_every_level_but_the_year():
    found, everything = right(MISC, MISC), set(MEASURES) - {WITHIN}
    assert found == {"label": everything, "model": everything, "make": everything, "year": set()}
    assert WITHIN not in right(PILOT_2011, MISC)["label"]


def test_a_candidate_without_a_year_takes_no_place_among_the_years():
    years = [parse(f"honda_pilot_{year}") for year in (2011, 2010, 2009, 2008, 2007, 2006)]
    neighbours = (years[0], MISC, *years[1:])
    assert "vote, top-5 classes" in right(years[4], *neighbours)["year"]
    assert "vote, top-5 classes" not in right(years[5], *neighbours)["year"]


def test_photos_without_a_year_are_not_counted_among_the_years():
    found = scores([outcomes(truth, [MISC], answer(MISC)) for truth in (MISC, PILOT_2011)], seed=0)
    assert {(score.level, score.photos) for score in found if score.measure != WITHIN} == {
        ("label", 2),
        ("model", 2),
        ("make", 2),
        ("year", 1),
    }
    assert {(score.level, score.photos) for score in found if score.measure == WITHIN} == {("label", 1), ("year", 1)}


def test_the_answer_comes_first_among_the_candidates_of_the_vote():
    neighbours = (CAMRY, PILOT_2011, CIVIC)
    assert answer(*neighbours).vote.labels[0].label == CAMRY
    assert right(PILOT_2011, *neighbours)["label"] >= {"vote, top-1", "vote, top-5 classes"}
    assert "vote, top-5 classes" in right(CAMRY, *neighbours)["label"]


def test_without_an_answer_nothing_is_right():
    assert right(CAMRY) == {level: set() for level in CLASSES}


def test_at_most_five_distinct_classes_are_taken_in_order_and_none_is_none_of_them():
    labels = [MISC, CIVIC, CIVIC, PILOT_2011, CAMRY, PILOT_2012, *(parse(f"a_b_{year}") for year in (1999, 2000, 2001))]
    assert distinct(labels, "year") == [2005, 2011, 2012, 1999, 2000]


def test_recall_at_k_looks_at_k_photos():
    nearest = [CIVIC, CAMRY, MISC, PILOT_2011, PILOT_2012]
    assert recalls(CIVIC, nearest) == {1: True, 2: True, 4: True, 8: True}
    assert recalls(CAMRY, nearest) == {1: False, 2: True, 4: True, 8: True}
    assert recalls(PILOT_2011, nearest) == {1: False, 2: False, 4: True, 8: True}
    assert recalls(PILOT_2012, nearest) == {1: False, 2: False, 4: False, 8: True}
    assert not any(recalls(parse("none of them"), nearest).values())


def test_scores_are_shares_of_photos_with_their_intervals():
    halves = [outcomes(CAMRY, [label], answer(label)) for label in (CAMRY, CIVIC) * 25]
    score = scores(halves, seed=0)[0]
    assert (score.level, score.measure, score.photos, score.value) == ("label", MEASURES[0], 50, 0.5)
    assert score.low == pytest.approx(0.5 - 1.96 * (0.25 / 50) ** 0.5, abs=0.03)
    assert score.high == pytest.approx(0.5 + 1.96 * (0.25 / 50) ** 0.5, abs=0.03)
