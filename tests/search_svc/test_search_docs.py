"""docs/search.md says what there is."""

import dataclasses
import re
from pathlib import Path

import pytest
from vmmr.search.v1 import search_pb2

from search_svc.serving.config import PREFIX, SearchConfig
from svckit.server import ServerConfig

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
SOURCES = Path(__file__).parents[2] / "search_svc"
MAIN = (SOURCES / "__main__.py").read_text()
SHARED = {field.name for field in dataclasses.fields(ServerConfig)}


def rows(section):
    """The cells of the rows of a section's tables, less the headings."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    tables = [table.splitlines()[2:] for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for table in tables for line in table]


def test_every_setting_is_in_the_table_with_its_variable_and_default():
    own = [field for field in dataclasses.fields(SearchConfig) if field.name not in SHARED]
    table = {row[0].split(",")[0].strip("`"): row for row in rows("Settings")}
    assert table.keys() == {f"--{field.name.replace('_', '-')}" for field in own}
    for field in own:
        row = table[f"--{field.name.replace('_', '-')}"]
        default = field.metadata.get("shown") or str(field.default)
        assert row[1:3] == [f"`{PREFIX}_{field.name.upper()}`", default]


def test_every_option_is_in_the_table():
    assert [row[0].strip("`") for row in rows("Options")] == [
        field.name for field in search_pb2.SearchOptions.DESCRIPTOR.fields
    ]


@pytest.mark.parametrize("name", re.findall(r'"(vmmr_\w+)"', MAIN))
def test_every_metric_of_its_own_is_on_the_page(name):
    tables = [*rows("Shards that are late"), *rows("A gallery that changes"), *rows("On a Ray cluster")]
    assert [row for row in tables if f"`{name}`" in row[0].split(", ")]


LOGGED = ["opened", "shard abandoned", "abandoned search ended", "opening version", "switched version"]


@pytest.mark.parametrize("message", LOGGED)
def test_every_log_message_of_its_own_is_on_the_page(message):
    assert f"`{message}`" in PAGE
    assert any(f'("{message}", extra' in path.read_text() for path in SOURCES.rglob("*.py"))


def test_what_is_logged_of_what_goes_wrong_is_on_the_page():
    failing = re.findall(r'_Chore\("([^"]+)"', (SOURCES / "live/following.py").read_text())
    assert len(failing) == 2
    assert all(f"`{message}`" in PAGE for message in failing)


def test_what_an_answer_says_and_every_verdict_is_on_the_page():
    answer = search_pb2.Classification.DESCRIPTOR.fields_by_name
    told = {"verdict", "known_score", *(name for name in answer if name.endswith(("_confidence", "_year")))}
    asked = {"fuse", *(name for name in search_pb2.ClassifyRequest.DESCRIPTOR.fields_by_name if "confidence" in name)}
    assert {name for name in told | asked if f"`{name}`" not in PAGE} == set()
    assert {row[0].strip("`") for row in rows("The answer")} >= {*search_pb2.Verdict.keys()} - {"VERDICT_UNSPECIFIED"}
