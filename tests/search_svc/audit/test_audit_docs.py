"""docs/audit.md has every flag and column, and the thresholds of the code."""

import argparse
import re
from pathlib import Path

from search_svc.audit import command, copies, findings

PAGE = (Path(__file__).parents[3] / "docs" / "audit.md").read_text()


def described(text):
    return re.findall(r"^\| `([\w-]+)", text, re.MULTILINE)


def test_every_flag_and_column_has_a_row():
    commands = argparse.ArgumentParser().add_subparsers()
    command.add(commands)
    actions = commands.choices["audit"]._actions[1:]
    flags, files = PAGE.split("\n## What it writes\n")
    assert described(flags) == [(action.option_strings or [action.metavar])[0] for action in actions]
    assert described(files) == [*findings.COLUMNS]
    assert all(f"`{name}`" in files for name in (command.FINDINGS_FILE, command.PAGE_FILE, command.EXCLUDE_FILE))


def test_the_thresholds_are_those_of_the_code():
    for value in (copies.ALIKE, findings.LABEL_SCORE, findings.ODD_SCORE):
        assert f"from {value} on" in PAGE
