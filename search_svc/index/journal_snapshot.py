"""A journal as a connection sees it within one transaction, checked against what was acknowledged and what was written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_svc.index import journal_mark
from search_svc.index.journal_errors import another, damaged, ends_early
from search_svc.index.journal_format import COLUMNS, FORMAT, INSERT, LOST, Meta, Row, is_true, row_of, schema, set_up
from search_svc.index.journal_mark import Mark

ALL = 1 << 62
"""More entries than there can be."""


@dataclass(frozen=True)
class Snapshot:
    """A journal as a connection saw it at one moment of a transaction."""

    connection: sqlite3.Connection
    path: Path
    format: int
    meta: Meta
    last: int
    """Number of the last entry that there ever was."""

    @classmethod
    def of(cls, connection: sqlite3.Connection, path: Path) -> "Snapshot":
        """Raises ArtifactError if `meta` is not what was written, or if SQLite gave numbers that no entry has."""
        ((form,),) = connection.execute("PRAGMA user_version")
        # One statement for all: every write waits for this.
        found = dict(
            connection.execute("SELECT name, value FROM meta UNION ALL SELECT NULL, max(sequence) FROM entries")
        )
        highest = found.pop(None)
        meta = _meta_of(found, path, form)
        last = max(highest or 0, meta.pruned)
        if form == 1:
            given = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
            if given is None or given[0] != last:
                text = f"it ends with entry {last}, and the last number given is {given and given[0]}"
                raise damaged(path, text)
        return cls(connection, path, form, meta, last)

    def mark(self) -> Mark:
        """Return the mark of a journal of which all that is seen counts as acknowledged."""
        # An upgrade from an earlier format changes the checksums.
        return mark_of(self.connection) if self.format == FORMAT else Mark(self.last, self.meta.pruned)

    def check(self, mark: Mark | None) -> None:
        """Raise ArtifactError if something that was acknowledged is missing; `mark` was read before the transaction began."""
        if mark is None:
            if self.format > 1:
                raise journal_mark.missing(self.path)
            return
        if self.last < mark.sequence:
            raise ends_early(self.path, self.last, mark)
        if self.meta.pruned < mark.pruned:
            text = f"it says it was pruned up to {self.meta.pruned}, and that was {mark.pruned} already"
            raise damaged(self.path, text)
        if self.holds_another(mark):
            raise another(self.path, mark)

    def holds_another(self, mark: Mark) -> bool:
        """Return whether the entry of the mark's number is as it was written, and neither the one that was acknowledged nor in the place of it."""
        if mark.checksum is None or self.format == 1:
            return False
        there = self.connection.execute("SELECT checksum FROM entries WHERE sequence = ?", (mark.sequence,)).fetchone()
        if there is None or there[0] == mark.checksum:
            return False
        row = self.connection.execute(f"SELECT {COLUMNS} FROM entries WHERE sequence = ?", (mark.sequence,)).fetchone()
        # Releases that do not know which entry the mark tells of put another in its place, where it was lost.
        return row[1] != LOST and is_true(row, self.format)

    def rows(self, more: str, *values: Any) -> Iterator[Row]:
        """Rows of entries that are as they were written. Raises ArtifactError at one that is not."""
        with closing(self.connection.execute(f"SELECT {COLUMNS} FROM entries {more}", values)) as found:
            for row in found:
                if not is_true(row, self.format):
                    raise damaged(self.path, f"entry {row[0]} is not what was written")
                yield row

    def whole_writes(self, after: int, limit: int) -> list[Row]:
        """The rows after a number: so many, and then as many as end the write of the last. Raises ArtifactError at a gap."""
        found: list[Row] = []
        for row in self.rows("WHERE sequence > ? ORDER BY sequence", after):
            if row[0] != (expected := after + len(found) + 1):
                raise damaged(self.path, f"entry {expected} is missing")
            found.append(row)
            if row[-2] and len(found) >= limit:
                return found
        if (end := after + len(found)) < self.last:
            raise damaged(self.path, f"entries {end + 1} to {self.last} are missing")
        if found and not found[-1][-2]:
            raise damaged(self.path, f"entry {end} is its last, and ends no write")
        return found

    def verify(self) -> None:
        """Raise ArtifactError if tables or indexes are not as they were made, or do not fit each other."""
        tables = dict(self.connection.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"))
        if tables != schema(self.format):
            raise damaged(self.path, "its tables are not those that were made")
        ((said,),) = self.connection.execute("PRAGMA integrity_check(1)")
        if said != "ok":
            raise damaged(self.path, said.replace("\n", " ").strip())


@contextmanager
def reading(connection: sqlite3.Connection, path: Path, mark: Mark | None) -> Iterator[Snapshot]:
    """Yield the journal as it is at one moment. Raise ArtifactError if it lacks what was acknowledged when the mark was read."""
    connection.execute("BEGIN")
    try:
        yield checked(connection, path, mark)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def checked(connection: sqlite3.Connection, path: Path, mark: Mark | None) -> Snapshot:
    """Return what the connection sees in the transaction that has begun. Raise ArtifactError as `reading` does."""
    snapshot = Snapshot.of(connection, path)
    if mark is None and journal_mark.read(path):
        mark = journal_mark.NOTHING  # both were made since
    snapshot.check(mark)
    return snapshot


def read_meta(connection: sqlite3.Connection, path: Path, format_: int) -> Meta:
    """Return what `meta` says. Raise ArtifactError if it is not what was written."""
    return _meta_of(dict(connection.execute("SELECT name, value FROM meta")), path, format_)


def _meta_of(rows: dict[str, Any], path: Path, format_: int) -> Meta:
    stated = rows.pop("checksum", None)
    try:
        meta = Meta(**rows)
        if format_ == 1 or meta.checksum == stated:
            return meta
    except TypeError:  # a name or a value has become another
        pass
    raise damaged(path, "`meta` is not what was written")


def mark_of(connection: sqlite3.Connection) -> Mark:
    """Return the mark of a journal of FORMAT once the transaction is committed; `meta` was checked when it began."""
    last = "(SELECT max(sequence) FROM entries)"
    columns = f"value, {last}, (SELECT checksum FROM entries WHERE sequence = {last})"
    ((pruned, highest, checksum),) = connection.execute(f"SELECT {columns} FROM meta WHERE name = 'pruned'")
    highest = highest or 0
    return Mark(max(highest, pruned), pruned, checksum if highest >= pruned else None)


def upgrade(old: Snapshot) -> None:
    """Make a journal of format 1 one of format 2, within a transaction that writes.

    Raises ArtifactError if it is damaged: a new checksum would hide that.
    """
    connection, meta = old.connection, old.meta
    old.verify()
    rows = old.whole_writes(meta.pruned, ALL)
    mark = Mark(old.last, meta.pruned)
    journal_mark.create(old.path, mark)
    for table in ("entries", "meta"):
        connection.execute(f"DROP TABLE {table}")
    set_up(connection, meta)
    connection.executemany(INSERT, (row_of(row[0], row[1], row[2:7], closes=bool(row[7])) for row in rows))
