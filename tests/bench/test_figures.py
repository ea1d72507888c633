"""A figure in README, docs or a card names the stored result that it comes from, and equals it."""

import json

import pytest

from bench import figures
from bench.lib import stored
from bench.lib.paths import ROOT

STORED = {
    "served / raw": [0.98, 0.83, 1.0],
    "recall": {"value": 0.8614, "low": 0.8383, "high": 0.8834},
    "scores": [{"level": "label", "k": 1, "right": 0.5}, {"level": "label", "k": 5, "right": 0.75}],
    "big": 12345.6,
    "down": -0.26,
    "words": "many",
}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """`made.json` beside the real ones; for the tests of pages the real ones alone."""
    stored._stored.cache_clear()
    (tmp_path / "made.json").write_text(json.dumps(STORED))
    return tmp_path


@pytest.fixture
def made(results, monkeypatch):
    monkeypatch.setattr(stored, "RESULTS", results)
    yield
    stored._stored.cache_clear()


def page(text, *lines):
    return f"{text}\n\n<!-- figures\n" + "".join(f"{line}\n" for line in lines) + "-->\n"


# Figures of these pages have no stored result, and wait to be measured again. No page may get more of them; where there are fewer, the
# number here goes down.
LACKING = {
    "docs/audit.md": 20,
    "docs/calibration.md": 38,
    "docs/client.md": 23,
    "docs/embedder.md": 55,
    "docs/export.md": 11,
    "docs/gallery.md": 2,
    "docs/loadtest.md": 1,
    "docs/scaling.md": 80,
    "docs/search.md": 20,
    "docs/select.md": 1,
    "docs/training.md": 4,
}


@pytest.mark.parametrize("path", figures.pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_figure_of_a_page_names_a_stored_result_and_equals_it(path):
    wrong = list(figures.check(path.read_text()))
    lacking = [each for each in wrong if "has no line" in each]
    assert [each for each in wrong if each not in lacking] == []
    assert len(lacking) == LACKING.get(str(path.relative_to(ROOT)), 0), lacking[:20]


@pytest.mark.parametrize(
    "line",
    [
        "86.1 [83.8, 88.3] = 100 x made.json > recall",
        "86 = 100 x made.json > recall",
        "0.98 [0.83, 1.00] = made.json > served / raw",
        "0.8 = min of made.json > served / raw",
        "3 = count of made.json > served / raw",
        "75 = 100 x made.json > scores > level=label & k=5 > right",
        "0.5 = made.json > scores > 0 > right",
        "12,346 = made.json > big",
        "12346 = made.json > big",
        "0.26 = made.json > down",
        "-0.26 = made.json > down",
        "1.5 = made.json > scores > k=5 > right divided by made.json > scores > k=1 > right",
        "0.25 = made.json > scores > k=5 > right minus made.json > scores > k=1 > right",
        "2.5 = made.json > scores > k=5 > right plus made.json > scores > k=1 > right divided by 0.5",
        "95 is fixed",
    ],
)
def test_a_figure_that_is_what_is_stored_is_right(made, line):
    figure = line.partition(" = ")[0].partition(" is ")[0]
    assert list(figures.check(page(f"It is {figure} % of all.", line))) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("86.2 = 100 x made.json > recall", "`86.2` is 86.1 in 100 x made.json > recall"),
        ("86.1 [83.8, 88.4] = 100 x made.json > recall", "is 86.1 [83.8, 88.3] in"),
        ("1 = none.json > a", "there is no bench/results/none.json"),
        ("1 = made.json > scores > level=label > right", "nothing, or not one thing, is stored at `level=label`"),
        ("1 = made.json > words", "leads to no number"),
        ("1 is nice", "neither"),
        ("+0.26 = made.json > down", "the sign is another"),
        ("7 = made.json > big", "there is no such figure"),
    ],
)
def test_a_line_that_is_wrong_is_told(made, line, said):
    found = list(figures.check(page("86.2 % or 86.1 [83.8, 88.4], 1 % and +0.26 %.", line)))
    assert any(said in each for each in found), found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("takes 3.5 ms", ["3.5"]),
        ("between 2.3 and 4.2 ms", ["2.3", "4.2"]),
        ("12.5, 12.8 and 15 photos/s", ["12.5", "12.8", "15"]),
        ("**89.3** %", ["89.3"]),
        ("1,024 MB", ["1,024"]),
        ("0.97 [0.86, 1.11] of it", ["0.97", "0.86", "1.11"]),
        ("+3.2 [+1.5, -4.8]", ["3.2", "1.5", "4.8"]),
        ("| nearest, 5 | 86.1 / 95.9 | +2 | x 3 of it |\n|---|---|---|---|", ["86.1", "95.9", "2"]),
        ("909 photos of 196 cars, ADR 17, 2012, v1.2, `--drain-s 5 s`, [page](a/3%20b.md)", []),
        ("| `--drain-s` | 20 | seconds |", []),
        ("```\np99 63 ms\n```", []),
    ],
)
def test_what_is_a_figure(text, told):
    assert [each.split("`")[1] for each in figures.check(text)] == told


def test_several_figures_of_a_kind_have_one_line(made):
    assert list(figures.check(page("1,024 MB, 5 s and 60 %", "60, 1,024, 5 are fixed"))) == []


def test_rows_may_be_those_that_a_bench_prints(made, monkeypatch):
    monkeypatch.setattr(figures, "_printed", {"bench.a:tables": frozenset(["| a | 2.5 ms |"])}.get)
    text = "| | |\n|---|---|\n| **a** | 2.5 ms |\n| b | 3 ms |"
    assert [each.split("`")[1] for each in figures.check(page(text, "rows of bench.a:tables"))] == ["3"]


def test_a_line_is_of_one_figure(made):
    text = page("75 % here, and 75 % there.", "75 = 100 x made.json > scores > 1 > right")
    assert [each.split("`")[1] for each in figures.check(text)] == ["75"]


def test_figures_are_brought_up_to_date_and_nothing_else_is_changed(made):
    lines = ("80.0 [1.0, 2.0] = 100 x made.json > recall", "10,000 = made.json > big", "95 is fixed")
    before = page("| a `80.0` | 80.0 [1.0, 2.0] |\n\nof 10,000 MB, 95 % sure, 80.0 twice", *lines) + "\nand 10,000 more"
    after = figures.rewritten(before)
    text = "| a `80.0` | 86.1 [83.8, 88.3] |\n\nof 12,346 MB, 95 % sure, 80.0 twice"
    lines = ("86.1 [83.8, 88.3] = 100 x made.json > recall", "12,346 = made.json > big", "95 is fixed")
    assert after == page(text, *lines) + "\nand 10,000 more"
    assert figures.rewritten(after) == after
