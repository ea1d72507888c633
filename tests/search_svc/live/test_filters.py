import difflib

import numpy as np
import pytest
from vmmr.search.v1 import search_pb2

from search_svc.live.filters import Filter, FilterReader
from search_svc.voting.labels import Label, parse
from search_svc.voting.vocabulary import Vocabulary
from svckit.errors import Reason

LABELS = [
    parse(name)
    for name in (
        "acura_integra_1900",
        "honda_civic_2005",
        "honda_pilot_2011",
        "mercedes benz_e320_2001",
        "misc",
        "toyota_camry_2007",
    )
]


def filter_of(**fields):
    return Filter.of(search_pb2.Filter(**fields))


def reading(labels):
    return FilterReader(Vocabulary(labels), np.ones(len(labels), np.int64))


READER = reading(LABELS)


def let_through(**fields) -> list[str]:
    allowed = READER.mask(filter_of(**fields))
    return [label.label for label, passes in zip(LABELS, allowed, strict=True) if passes]


def violations(**fields):
    return list(READER.violations(filter_of(**fields)))


def test_an_empty_filter_is_none():
    assert filter_of() is None


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({"makes": ["honda"]}, ["honda_civic_2005", "honda_pilot_2011"]),
        ({"makes": ["honda", "toyota"]}, ["honda_civic_2005", "honda_pilot_2011", "toyota_camry_2007"]),
        ({"models": ["pilot", "camry"]}, ["honda_pilot_2011", "toyota_camry_2007"]),
        ({"makes": ["honda"], "models": ["camry", "civic"]}, ["honda_civic_2005"]),
        ({"makes": ["honda"], "models": ["camry"]}, []),
        ({"labels": ["misc", "honda_civic_2005"]}, ["honda_civic_2005", "misc"]),
        ({"min_year": 2005, "max_year": 2007}, ["honda_civic_2005", "toyota_camry_2007"]),
        ({"min_year": 2008}, ["honda_pilot_2011"]),
        ({"max_year": 2001}, ["mercedes benz_e320_2001"]),
        ({"min_year": 0}, [label.label for label in LABELS if label.year]),
        ({"makes": ["Mercedes-Benz"], "models": ["E320"]}, ["mercedes benz_e320_2001"]),
    ],
)
def test_values_are_alternatives_and_fields_restrict_together(fields, labels):
    assert let_through(**fields) == labels
    assert violations(**fields) == []


def test_a_make_written_by_hand_is_found_however_it_is_written():
    reader = reading([Label("x", "Alfa Romeo", "Spider", 1970)])
    wanted = filter_of(makes=["alfa_romeo"], models=["spider"])
    assert not list(reader.violations(wanted))
    assert reader.mask(wanted).all()


def test_an_unknown_value_is_told_with_those_that_look_like_it():
    (violation,) = violations(makes=["hnoda", "toyota"])
    assert violation.field == "options.filter.makes"
    assert violation.reason == Reason.UNKNOWN_FILTER_VALUE
    assert violation.description == "no gallery photo has 'hnoda' (did you mean 'honda'?)"


def test_labels_are_compared_as_they_are_and_the_right_one_is_named():
    (violation,) = violations(labels=["Honda_Pilot_2011"])
    assert "did you mean 'honda_pilot_2011'" in violation.description


def test_what_has_no_make_cannot_be_asked_for_by_an_empty_one():
    (violation,) = violations(makes=[""])
    assert violation.description == "no gallery photo has ''"


def test_many_unknown_values_are_counted_and_long_ones_cut():
    (violation,) = violations(models=["x" * 10_000, "y", "z", "w", "v"])
    assert violation.description.endswith("'y', 'z', 2 more")
    assert len(violation.description) < 200


def test_what_looks_like_the_first_unknown_value_is_told_and_like_no_other():
    (violation,) = violations(makes=["hnoda", "tyoota"])
    assert violation.description == "no gallery photo has 'hnoda' (did you mean 'honda'?), 'tyoota'"


def test_of_thousands_of_labels_hundreds_are_compared_and_the_likeliest_first(monkeypatch):
    compared = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda value, names: compared.extend(names) or [])
    reader = reading([Label(f"m{number:05}", "", "", None) for number in range(9000)])
    assert list(reader.violations(filter_of(labels=["m08x"])))
    assert len(compared) == 500
    assert compared[0] == "m08000"


def test_every_field_is_told_of_at_once():
    found = violations(makes=["a"], models=["b"], labels=["c"], min_year=2010, max_year=2005)
    assert [(violation.field, violation.reason) for violation in found] == [
        ("options.filter.makes", Reason.UNKNOWN_FILTER_VALUE),
        ("options.filter.models", Reason.UNKNOWN_FILTER_VALUE),
        ("options.filter.labels", Reason.UNKNOWN_FILTER_VALUE),
        ("options.filter.min_year", Reason.INVALID_FILTER),
    ]


def test_filters_that_ask_for_the_same_are_equal_however_their_makes_are_written():
    assert filter_of(makes=["Mercedes-Benz"], min_year=0) == filter_of(makes=["mercedes benz"], min_year=0)
    assert filter_of(makes=["Mercedes-Benz"], min_year=0) != filter_of(makes=["mercedes benz"])
