"""What can be had of a damaged journal: the rows that SQLite reaches, those that `salvage` finds in the pages, and the mark."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from search_svc.index import journal_file, journal_format, journal_mark, salvage
from search_svc.index.journal_errors import ERRORS
from search_svc.index.journal_format import FORMAT, Meta, Row, is_true, row_of, true_format
from search_svc.index.journal_mark import Mark
from search_svc.index.journal_snapshot import read_meta
from svckit.artifact import ArtifactError

_LEAST_ROW, _SPARE = 16, 100_000
"""Bytes that a row takes at least; rows that may have been in a part of the file that is gone."""
_ROW = f"SELECT {journal_format.COLUMNS} FROM entries WHERE sequence = ?"  # noqa: S608

_REMAINS = "SELECT CAST(item_id AS BLOB), CAST(label AS BLOB) FROM entries WHERE sequence = ?"


@dataclass(frozen=True)
class Recovered:
    rows: dict[int, Row]
    """By number."""
    meta: Meta | None
    mark: Mark | None
    last: int
    """The last number that was given, as far as it can be told."""
    unknown: list[str]
    remains: dict[int, str]
    """Of entries that are not as they were written: the item and its label as they are there now, by number."""


def recover(path: Path, copy: Path, held: int) -> Recovered:
    """Return what can be had of a journal by whatever means; `copy` is one of its files that SQLite may open.

    `held` is the last entry that the current version holds: no more was ever pruned. Raises ArtifactError if the journal is of a later format:
    none of its entries can be told to be as it was written.
    """
    mark, unknown = None, []
    with suppress(ArtifactError):
        mark = journal_mark.read(path)
    form = _format_of_meta(copy, marked=journal_mark.path_of(path).exists())
    is_last = partial(is_last_entry, mark) if mark and mark.checksum is not None else None
    salvaged = salvage.rows(*journal_file.files(copy)[:2], is_last)
    if not salvaged and FORMAT < (stated := _stated_format(copy)) <= journal_file.MOST_FORMATS:
        raise journal_file.later_format(path, stated)
    with closing(sqlite3.connect(copy, isolation_level=None)) as source:
        meta = _meta(source, copy, form, held)
        numbers = _believable(copy, meta, mark, salvaged)
        salvaged = {number: some for number, some in salvaged.items() if number < numbers.stop}
        given = _given(source, numbers) if form == 1 else 0
        seen, remains = _seen(source, numbers, max(given, *salvaged, 0))
    if mark:
        # Of what nobody was told of, a write that was not committed may be there in parts.
        salvaged = {number: some for number, some in salvaged.items() if number <= mark.sequence}
        # A checksum of format 1 does not cover the number.
        seen = {number: row for number, row in seen.items() if number <= mark.sequence or is_true(row, FORMAT)}
        if is_last:
            there = [*salvaged.pop(mark.sequence, ()), *filter(None, [seen.pop(mark.sequence, None)])]
            seen.update((row[0], row) for row in there if is_last(row))
    rows = {number: some[0] for number, some in salvaged.items() if len(some) == 1} | seen
    pruned = max(meta.pruned if meta else 0, mark.pruned if mark else 0)
    unknown += [
        f"entry {number}: {len(salvaged[number])} are there, and which was acknowledged cannot be told"
        for number in sorted(salvaged.keys() - rows.keys())
        if number > pruned
    ]
    last = max(given, mark.sequence if mark else 0, *rows, *salvaged, held)
    if mark is None and (form > 1 or not given):
        unknown.append(f"up to which entry it was acknowledged cannot be read: any after {last} are lost")
    return Recovered(rows, meta, mark, last, unknown, remains)


def is_last_entry(mark: Mark, row: Row) -> bool:
    """Return whether a row, of any format, is the last entry that was acknowledged, of which the mark has the checksum in this one."""
    closing = (row_of(row[0], row[1], row[2:7], closes=closes) for closes in (False, True))
    return row[0] == mark.sequence and mark.checksum in {each[-1] for each in closing}


def _format_of_meta(copy: Path, *, marked: bool) -> int:
    """Return the format that `meta` is read in: in format 1 it has no checksum, so that a mark is to be believed and not that.

    The file's format is at a fixed place, but for a journal whose upgrade is in the log alone.
    """
    return 1 if _stated_format(copy) == 1 and not marked else FORMAT


def _stated_format(copy: Path) -> int:
    return int.from_bytes(copy.read_bytes()[60:64], "big") if copy.exists() else 0


def _meta(source: sqlite3.Connection, copy: Path, form: int, held: int) -> Meta | None:
    with suppress(*ERRORS, ArtifactError):
        meta = read_meta(source, copy, form)
        # In format 1 a flipped bit in it is not noticed otherwise.
        return None if form == 1 and meta.pruned > held else meta
    return None


def _believable(copy: Path, meta: Meta | None, mark: Mark | None, salvaged: Iterable[int]) -> range:
    """Return the numbers that entries can have: there are no gaps, so no more than rows that fit into the files.

    A checksum of format 1 does not cover an entry's number, and the last number given has none.
    """
    first = 1 + (meta.pruned if meta else mark.pruned if mark else min(salvaged, default=1) - 1)
    size = sum(file.stat().st_size for file in journal_file.files(copy)[:2] if file.exists())
    return range(first, first + size // _LEAST_ROW + _SPARE)


def _given(source: sqlite3.Connection, numbers: range) -> int:
    """Return the last number that was given, as SQLite keeps it for format 1; 0 if it cannot be, or cannot be read."""
    given = _value(source, "SELECT seq FROM sqlite_sequence WHERE name = 'entries'")
    return given if given < numbers.stop else 0


def _seen(source: sqlite3.Connection, numbers: range, highest: int) -> tuple[dict[int, Row], dict[int, str]]:
    """Return the rows that SQLite sees, asked for one by one, for a bad page costs what is on it; and what remains of others."""
    rows: dict[int, Row] = {}
    remains: dict[int, str] = {}
    highest = max(highest, _value(source, "SELECT max(sequence) FROM entries"))
    for number in range(numbers.start, min(highest + 1, numbers.stop)):
        with suppress(*ERRORS):
            row = source.execute(_ROW, (number,)).fetchone()
            if row and true_format(row):
                rows[number] = row
        if number not in rows and (left := _remains(source, number)):
            remains[number] = left
    return rows, remains


def _remains(source: sqlite3.Connection, number: int) -> str:
    """Return the item and the label of an entry as they are there, also if they are no text any more; empty if nothing is."""
    with suppress(*ERRORS):
        row = source.execute(_REMAINS, (number,)).fetchone()
        if row:
            item, label = (None if each is None else each.decode(errors="replace") for each in row)
            return f"item {item!r}, " + ("deleted" if label is None else f"label {label!r}")
    return ""


def _value(source: sqlite3.Connection, sql: str) -> int:
    with suppress(*ERRORS):
        row = source.execute(sql).fetchone()
        return row[0] if row and isinstance(row[0], int) else 0
    return 0
