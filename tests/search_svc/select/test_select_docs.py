"""docs/select.md has every flag and file, and the numbers of the code."""

import argparse
import re
from pathlib import Path

from search_svc.building import spec_file
from search_svc.select import choice, command, division, exam, grid, sweep

PAGE = (Path(__file__).parents[3] / "docs" / "select.md").read_text()


def rows(section):
    """Return the cells of each row of a section's table, without the heading."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = re.findall(r"^\|.*$", text, re.MULTILINE)[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_flag_is_in_the_table_as_the_help_shows_it():
    commands = argparse.ArgumentParser().add_subparsers()
    command.add(commands)
    actions = [action for action in commands.choices["select"]._actions if action.dest != "help"]
    assert [cells[0] for cells in rows("Flags")] == [
        f"`{' '.join([*action.option_strings, action.metavar])}`" for action in actions
    ]


def test_every_file_is_in_the_table():
    files = [command.SPEC_FILE, command.POINTS_FILE, command.PAGE_FILE, command.PICTURE_FILE, command._WORK]
    assert [cells[0] for cells in rows("Files")] == [f"`{name}`" for name in files]
    assert re.findall(r"`(\w+)`", rows("Files")[0][1]) == [*spec_file.FIELDS, "reason"]


def test_numbers_are_those_of_the_code():
    text = " ".join(PAGE.split())
    assert f"Differences of up to {100 * choice.NOISE:g} points" in text
    assert f"{4096 * grid.POINTS_A_LIST:,} photos to train, {grid.POINTS_A_LIST} a list" in text
    assert f"({grid.POINTS_A_CODEWORD} for each word of a code)" in text
    assert f"of more than {division.MOST_ASKED}," in text
    assert (exam.K, exam.ROUNDS, sweep.FINALISTS) == (10, 5, 5)
    assert f"In a round of {exam._SINGLES} queries" in text
