"""docs/live.md says what the commands and the log have."""

import argparse
import re
from itertools import zip_longest
from pathlib import Path

import pytest

from search_svc.building import migrate_command, versions_command
from svckit.errors import Reason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "live.md").read_text()
SOURCES = [
    (ROOT / "search_svc" / f"serving/{name}.py").read_text() for name in ("compactor", "gallery_service", "backups")
]


def documented(heading):
    """By flag, what the table under a heading has as its default."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]
    found = {}
    for names, defaults in re.findall(r"^\| (`--[^|]*) \|.*\| ?([^|]*) ?\|$", section, re.MULTILINE):
        flags = [flag for flag in re.findall(r"--[a-z-]+", names) if not flag.startswith("--no-")]
        found |= dict(zip_longest(flags, defaults.strip().split(", ")[: len(flags)]))
    return found


@pytest.mark.parametrize(
    ("module", "command", "heading"),
    [(versions_command, "compact", "Compaction"), (migrate_command, "migrate", "Another model")],
)
def test_every_flag_of_a_command_has_a_row_with_its_default_and_every_row_a_flag(module, command, heading):
    choices = argparse.ArgumentParser().add_subparsers()
    module.add(choices)
    actions = [a for a in choices.choices[command]._actions if a.option_strings and a.help != argparse.SUPPRESS]
    flags = {action.option_strings[0]: action.default for action in actions if "-h" not in action.option_strings}
    rows = documented(heading)
    assert rows.keys() == flags.keys()
    defaults = {
        flag: f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        for flag, default in flags.items()
        if default not in (None, False)
    }
    assert {flag: rows[flag] for flag in defaults} == defaults


def test_every_log_message_is_on_the_page():
    messages = {message for source in SOURCES for message in re.findall(r'_log\.\w+\("([^"]+)"', source)}
    assert len(messages) == 10
    assert all(f"| `{message}` |" in PAGE for message in messages)


def test_the_reasons_it_names_are_there():
    named = set(re.findall(r"`((?:JOURNAL|COMPACTION)_[A-Z]+)`", PAGE))
    assert named <= set(Reason)
    assert {"JOURNAL_FULL", "JOURNAL_UNWRITABLE", "COMPACTION_RUNNING"} <= named
