"""docs/live.md says what the commands and the log have."""

import argparse
import re
from pathlib import Path

from search_svc import versions_command
from svckit.errors import Reason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "live.md").read_text()
SOURCES = [(ROOT / "search_svc" / f"{name}.py").read_text() for name in ("compactor", "gallery_service")]


def test_every_flag_of_compact_has_a_row_with_its_default_and_every_row_a_flag():
    choices = argparse.ArgumentParser().add_subparsers()
    versions_command.add(choices)
    actions = [a for a in choices.choices["compact"]._actions if a.option_strings and a.help != argparse.SUPPRESS]
    flags = {action.option_strings[0]: action.default for action in actions if "-h" not in action.option_strings}
    rows = {
        row[0].strip("`"): row[-1].strip() for row in re.findall(r"^\| (`--[a-z-]+`).*\| (.*) \|$", PAGE, re.MULTILINE)
    }
    assert rows.keys() == flags.keys()
    defaults = {flag: f"`{default}`" for flag, default in flags.items() if default is not None}
    assert {flag: rows[flag] for flag in defaults} == defaults


def test_every_log_message_is_on_the_page():
    messages = {message for source in SOURCES for message in re.findall(r'_log\.\w+\("([^"]+)"', source)}
    assert len(messages) == 7
    assert all(f"| `{message}` |" in PAGE for message in messages)


def test_the_reasons_it_names_are_there():
    named = set(re.findall(r"`((?:JOURNAL|COMPACTION)_[A-Z]+)`", PAGE))
    assert named <= set(Reason)
    assert {"JOURNAL_FULL", "JOURNAL_UNWRITABLE", "COMPACTION_RUNNING"} <= named
