"""docs/data.md says what the command and its sources are."""

import argparse
import re

import pytest

from search_svc.fetching import annotations, archives, command, sources


@pytest.fixture(scope="module")
def page(root):
    return (root / "docs" / "data.md").read_text()


def cells(page):
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]


def test_every_flag_has_a_row_with_its_default_and_every_row_a_flag(page):
    choices = argparse.ArgumentParser().add_subparsers()
    command.add(choices)
    actions = {(action.option_strings or [action.metavar])[0]: action for action in choices.choices["fetch"]._actions}
    del actions["-h"]
    table = {row[0].strip("`").split()[0]: row[-1] for row in cells(page)}
    assert {name for name in table if name.startswith("--") or name.isupper()} == set(actions)
    for name, action in actions.items():
        if isinstance(action.default, bool):
            assert table[name] == f"`{action.default}`"


def test_every_source_is_named_in_its_order(page):
    for name, dataset in sources.read(sources.SHIPPED).items():
        (row,) = [row for row in cells(page) if row[0] == f"`{name}`" and row[1][0].isdigit()]
        assert re.findall(r"`([a-z]+)`:", row[-1]) == [source.name for source in dataset.sources]
        for source in dataset.sources:
            assert (f"`{source.name}`: has gone" in row[-1]) == bool(source.gone)


def test_bounds_and_files_are_those_of_the_code(page):
    assert f"more than {archives.MOST_ENTRIES:,} files or {archives.MOST_BYTES >> 30} GiB" in page
    assert f"more than {archives.MOST_BYTES_OF_ONE >> 20} MiB" in page
    assert set(re.findall(r"`([\w.]+)`", page)) >= annotations.FILES
    assert f"`{command.RECORD}`" in page
