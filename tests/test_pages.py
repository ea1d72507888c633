"""Pages are as they are meant to be read: tables are whole, and nothing of a private machine is in them."""

import re

import pytest

ROOT_PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def pages(root):
    return [
        *(root / name for name in ROOT_PAGES),
        *root.glob("docs/**/*.md"),
        *root.glob("models/*/*.md"),
        *root.glob("*/README.md"),
    ]


def cells(row):
    """How many cells a row has: bars in code do not end one if they are escaped."""
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def tables(text):
    """Rows of each table, outside of code blocks."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def test_every_row_of_a_table_is_whole(root):
    broken = [
        f"{page.relative_to(root)}: {row[:100]}"
        for page in pages(root)
        for table in tables(page.read_text() + "\n")
        for row in table
        if not row.rstrip().endswith("|") or cells(row) != cells(table[0])
    ]
    assert broken == []


def test_a_table_has_its_heading(root):
    without = [
        f"{page.relative_to(root)}: {table[0][:100]}"
        for page in pages(root)
        for table in tables(page.read_text() + "\n")
        if len(table) < 2 or not re.fullmatch(r"[|: -]+", table[1])
    ]
    assert without == []


@pytest.mark.parametrize("private", ["/work/", "/root/", "/tmp/pytest"])
def test_no_page_has_a_path_of_a_private_machine(root, private):
    assert [str(page) for page in pages(root) if private in page.read_text()] == []


def test_what_a_broken_row_is():
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | `x\\|y` |\n| 4\n"
    (rows,) = tables(table)
    assert [cells(row) for row in rows] == [2, 2, 2, 2, 0]
