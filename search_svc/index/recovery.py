"""What can be had of a damaged journal: the rows that SQLite reaches, those that `salvage` finds in the pages, and the mark."""

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from search_svc.index import journal_file, journal_format, journal_mark, salvage
from search_svc.index.journal_errors import ERRORS
from search_svc.index.journal_format import FORMAT, Meta, Row, is_true, true_format
from search_svc.index.journal_mark import Mark
from search_svc.index.journal_snapshot import read_meta
from svckit.artifact import ArtifactError

_ROW = f"SELECT {journal_format.COLUMNS} FROM entries WHERE sequence = ?"  # noqa: S608


@dataclass(frozen=True)
class Recovered:
    rows: dict[int, Row]
    """By number."""
    meta: Meta | None
    mark: Mark | None
    last: int
    """The last number that was given, as far as it can be told."""
    unknown: list[str]


def recover(path: Path, copy: Path) -> Recovered:
    """Return what can be had of a journal by whatever means; `copy` is one of its files that SQLite may open."""
    mark, unknown = None, []
    with suppress(ArtifactError):
        mark = journal_mark.read(path)
    form = _format_of_meta(copy, marked=journal_mark.path_of(path).exists())
    salvaged = salvage.rows(*journal_file.files(copy)[:2])
    seen, meta, given = _seen(copy, form, max(salvaged, default=0))
    if mark:
        # Of what nobody was told of, a write that was not committed may be there in parts.
        salvaged = {number: some for number, some in salvaged.items() if number <= mark.sequence}
        # A checksum of format 1 does not cover the number.
        seen = {number: row for number, row in seen.items() if number <= mark.sequence or is_true(row, FORMAT)}
    rows = {number: some[0] for number, some in salvaged.items() if len(some) == 1} | seen
    pruned = max(meta.pruned if meta else 0, mark.pruned if mark else 0)
    unknown += [
        f"entry {number}: {len(salvaged[number])} are there, and which was acknowledged cannot be told"
        for number in sorted(salvaged.keys() - rows.keys())
        if number > pruned
    ]
    last = max(given, mark.sequence if mark else 0, *rows, *salvaged, 0)
    if mark is None and (form > 1 or not given):
        unknown.append(f"up to which entry it was acknowledged cannot be read: any after {last} are lost")
    return Recovered(rows, meta, mark, last, unknown)


def _format_of_meta(copy: Path, *, marked: bool) -> int:
    """Return the format that `meta` is read in: in format 1 it has no checksum, so that a mark is to be believed and not that.

    The file's format is at a fixed place, but for a journal whose upgrade is in the log alone.
    """
    stated = copy.read_bytes()[60:64] if copy.exists() else b""
    return 1 if stated == b"\0\0\0\1" and not marked else FORMAT


def _seen(copy: Path, form: int, highest: int) -> tuple[dict[int, Row], Meta | None, int]:
    """What SQLite sees: rows, asked for one by one, for a bad page costs what is on it; `meta`; the last number given."""
    rows: dict[int, Row] = {}
    meta, given = None, 0
    with closing(sqlite3.connect(copy, isolation_level=None)) as source:
        with suppress(*ERRORS, ArtifactError):
            meta = read_meta(source, copy, form)
        if form == 1:
            given = _value(source, "SELECT seq FROM sqlite_sequence WHERE name = 'entries'")
        highest = max(highest, given, _value(source, "SELECT max(sequence) FROM entries"))
        for number in range(meta.pruned + 1 if meta else 1, highest + 1):
            with suppress(*ERRORS):
                row = source.execute(_ROW, (number,)).fetchone()
                if row and true_format(row):
                    rows[number] = row
    return rows, meta, given


def _value(source: sqlite3.Connection, sql: str) -> int:
    with suppress(*ERRORS):
        row = source.execute(sql).fetchone()
        return row[0] if row and isinstance(row[0], int) else 0
    return 0
