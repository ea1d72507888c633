"""The page about the page says what is so."""

import dataclasses
import re
from pathlib import Path

import pytest
from PIL import Image

from demo.pictures import MOST_BYTES, PICTURES
from tests.web.test_openapi import OPERATIONS
from web.config import WebConfig
from web.door.metrics import WebMetrics
from web.door.problems import STATUS, Reason

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "web.md").read_text()


def rows(head: str) -> list[list[str]]:
    """The cells of the table that begins with those words."""
    table = PAGE.split(f"\n| {head} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_setting_is_documented_with_its_default():
    documented = {flag: row[1].strip("`") for row in rows("flag") for flag in quoted(row[0])}
    defaults = {"--" + field.name.replace("_", "-"): field.default for field in dataclasses.fields(WebConfig)}
    assert documented.keys() == defaults.keys()
    told = {flag: value for flag, value in defaults.items() if value not in (None, "", False)}
    assert {flag: type(value)(documented[flag]) for flag, value in told.items()} == told


def test_every_reason_of_its_own_is_documented_with_its_status():
    assert {quoted(reason)[0]: int(status) for reason, status, _ in rows("reason")} == {
        reason.value: STATUS[reason] for reason in Reason
    }


def test_every_route_is_documented():
    documented = {tuple(each.split()) for row in rows("route") for each in quoted(row[0])}
    assert {(method.lower(), path) for method, path in documented} == OPERATIONS


def test_every_metric_is_documented():
    families = WebMetrics().registry.collect()
    exported = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
    assert {quoted(row[0])[0] for row in rows("metric")} == {
        name for name in exported if not name.startswith("process_")
    }


def pictures(page: str) -> list[str]:
    """The addresses of a page's pictures, each of which says in words what it shows."""
    return re.findall(r"!\[[^\]]{10,}\]\(([^)]+)\)", page)


def test_the_pictures_are_those_that_the_program_takes():
    shown = pictures(PAGE)
    assert shown == [f"pictures/{name}" for name in PICTURES]
    assert {path.name for path in (DOCS / "pictures").iterdir()} == set(PICTURES)
    assert len(shown) == PAGE.count("![")


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_there_whole_and_small(name):
    path = DOCS / "pictures" / name
    assert path.stat().st_size <= MOST_BYTES
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert len(picture.getcolors()) > 10, "it shows nothing"


def test_every_picture_that_a_page_names_is_there():
    named = [page.parent / picture for page in DOCS.rglob("*.md") for picture in pictures(page.read_text())]
    assert len(named) >= len(PICTURES)
    assert [str(path) for path in named if not path.is_file()] == []


def test_every_attack_that_the_page_lists_is_a_test():
    tests = Path(__file__).parents[1]
    files = [*(tests / "web").rglob("test_*.py"), tests / "svckit" / "photos" / "test_photo.py"]
    written = {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text())}
    named = [name for row in rows("attack") for name in quoted(row[2])]
    assert len(named) >= 15
    assert [name for name in named if name not in written] == []
