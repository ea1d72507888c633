from dataclasses import replace

import pytest
import vmmr

from demo import answers
from demo.answers import Answered, spread
from search_svc.voting import labels


def label(name):
    parsed = labels.parse(name)
    return vmmr.Label(parsed.label, parsed.make, parsed.model, parsed.year)


def answered(truth, answer, path=None, verdict=None):
    """A photo of `truth` that was taken for `answer`."""
    neighbours = tuple(vmmr.Neighbour(f"top/{answer}/{n}.jpg", label(answer), "", 0.9 - n / 10) for n in range(5))
    found = vmmr.Identification(
        answer=label(answer),
        make_confidence=1.0,
        model_confidence=0.75,
        label_confidence=0.5,
        verdict=verdict,
        known_score=None,
        years=None,
        years_confidence=0.5,
        makes=(),
        models=(),
        labels=(),
        neighbours=neighbours,
        provenance=vmmr.Provenance("", "000001", 0, 1, 1),
        times=vmmr.Times(vmmr.EmbedTimes(0, 0, 0), vmmr.SearchTimes(0, 0, 0), 0),
        request_id="",
    )
    return Answered(path or f"top/{truth}/007.jpg", labels.parse(truth), found)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("lumen_arc_2020", None),
        ("lumen_arc_2022", "year"),
        ("lumen_ray_2020", "model"),
        ("castell_arc_2020", "make"),
    ],
)
def test_an_answer_is_wrong_at_the_first_level_that_differs(answer, wrong):
    assert answered("lumen_arc_2020", answer).wrong == wrong


def test_no_answer_is_a_wrong_verdict():
    each = answered("lumen_arc_2020", "lumen_arc_2020")
    assert replace(each, found=replace(each.found, answer=None)).wrong == "verdict"


@pytest.mark.parametrize("told", [{"verdict": "unknown"}, {"no_car_found": True}])
def test_a_known_car_that_is_told_as_unknown_is_wrong_whatever_is_nearest(told):
    each = answered("lumen_arc_2020", "lumen_arc_2020")
    assert replace(each, found=replace(each.found, **told)).wrong == "verdict"


@pytest.mark.parametrize(("years", "wrong"), [((2019, 2022), None), ((2021, 2022), "year"), (None, "year")])
def test_a_range_of_years_is_right_if_it_has_the_photos_year(years, wrong):
    each = answered("lumen_arc_2020", "lumen_arc_2022", verdict="known")
    assert replace(each, found=replace(each.found, years=years)).wrong == wrong


def test_an_unknown_car_is_not_shown_as_an_answer(capsys):
    answers.show([answered("lumen_arc_2020", "lumen_arc_2022", verdict="unknown")])
    assert "unknown (nearest: lumen arc 2022)" in capsys.readouterr().out


def test_a_label_that_differs_in_words_that_are_not_read_is_wrong():
    """`lumen_arc_1` and `lumen_arc_2` have neither make nor model nor year."""
    assert answered("lumen_arc_1", "lumen_arc_2").wrong == "label"


@pytest.mark.parametrize(("count", "most", "expected"), [(9, 3, [0, 3, 6]), (2, 3, [0, 1]), (0, 3, [])])
def test_a_few_are_taken_from_all_over(count, most, expected):
    assert spread(range(count), most) == expected


def test_answers_are_shown_with_their_shares_and_nearest_photos(capsys):
    answers.show(
        [
            answered("lumen_arc_2020", "lumen_arc_2020", verdict="known"),
            answered("lumen_arc_2020", "lumen_arc_2022", verdict="known"),
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "  photo                     answer            make  model  label",
        "  ✓ lumen_arc_2020/007.jpg  lumen arc 2020    100%    75%    50%",
        "      0.900 lumen_arc_2020/0.jpg   0.800 lumen_arc_2020/1.jpg   0.700 lumen_arc_2020/2.jpg",
        "  ✗ lumen_arc_2020/007.jpg  lumen arc 2022    100%    75%    50%   wrong year",
        "      0.900 lumen_arc_2022/0.jpg   0.800 lumen_arc_2022/1.jpg   0.700 lumen_arc_2022/2.jpg",
    ]
