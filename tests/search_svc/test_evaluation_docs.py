"""docs/evaluation.md has every flag, measure and field, and the numbers of the code."""

import argparse
import dataclasses
import re
from pathlib import Path

from search_svc.evaluation import evaluate
from search_svc.evaluation.accuracy import CLASSES, MEASURES
from search_svc.evaluation.report.content import Report
from search_svc.evaluation.report.fusing import SIZES
from search_svc.evaluation.resampling import COSTLY_RESAMPLES, RESAMPLES
from search_svc.fitting.calibration_metrics import BINS

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


def rows(section):
    """Return the first cell of each row of a section's table, without the heading."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [line.strip("|").split(" | ")[0].strip() for line in re.findall(r"^\|.*$", text, re.MULTILINE)[2:]]


def test_every_flag_is_in_the_table_as_the_help_shows_it():
    commands = argparse.ArgumentParser().add_subparsers()
    evaluate.add(commands)
    actions = [action for action in commands.choices["evaluate"]._actions if action.dest != "help"]
    assert rows("Flags") == [f"`{' '.join([*action.option_strings, action.metavar])}`" for action in actions]


def test_every_measure_and_level_is_described():
    assert rows("Accuracy") == list(MEASURES)
    assert all(f"`{level}`" in PAGE for level in CLASSES)


def test_every_field_of_the_json_is_in_the_table():
    described = [name for cell in rows("The JSON") for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(described) == sorted(field.name for field in dataclasses.fields(Report))


def test_numbers_are_those_of_the_code():
    assert f"{BINS} bins of equal width" in PAGE
    assert f"{RESAMPLES:,}\nresamples for shares" in PAGE
    assert f"{COSTLY_RESAMPLES:,} for ECE" in PAGE
    assert "groups of {}, {} and {}".format(*SIZES) in PAGE
