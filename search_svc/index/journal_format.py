"""What is in `journal.db`: its tables, and how it is told whether they are as they were written.

Rows of `entries`, whose numbers have no gaps:

```
sequence    1, 2, 3 ...; never given twice, not even after all was pruned
item_id     the item that was written or deleted; empty for an entry that was lost, which changes nothing
label, uri, batch_id, attributes (JSON), embedding (float16, little-endian)     NULL where it was deleted
checksum    CRC-32 of all the rest of the row: SQLite does not notice a bit that flipped within a value
closes      1 in the last row of a write, which is whole or not at all
```

`meta` has the model and the dimension of the embeddings, the entry up to which all was pruned, and a checksum of these.
In format 1, the checksum of an entry did not cover its number nor `closes`, and `meta` had none; SQLite kept the last number.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from search_svc.index import journal_mark
from search_svc.index.journal_mark import Mark
from svckit.artifact import ArtifactError

FORMAT = 2
APPLICATION = 0x766D6D72  # "vmmr"
COLUMNS = "sequence, item_id, label, uri, batch_id, attributes, embedding, closes, checksum"
INSERT = f"INSERT INTO entries ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY{},
    item_id TEXT NOT NULL,
    label TEXT,
    uri TEXT,
    batch_id TEXT,
    attributes TEXT,
    embedding BLOB,
    checksum INTEGER NOT NULL,
    closes INTEGER NOT NULL
);
CREATE INDEX entries_of_item ON entries (item_id);
CREATE INDEX entries_of_label ON entries (label) WHERE label IS NOT NULL;
CREATE INDEX entries_of_batch ON entries (batch_id) WHERE batch_id <> '';
"""
_MORE = {1: " AUTOINCREMENT", 2: ""}
LOST = ""
"""Item id of an entry that was acknowledged and is lost."""

Values = tuple[str | None, str | None, str | None, str | None, bytes | None]
"""Label, uri, batch_id, attributes and embedding."""
Row = tuple[Any, ...]
"""Of COLUMNS."""


@dataclass(frozen=True)
class Meta:
    model: str
    dimension: int
    pruned: int
    """Entries up to this sequence number are gone, at least in part."""

    @property
    def checksum(self) -> int:
        return zlib.crc32(json.dumps(astuple(self)).encode())


def row_of(sequence: int, item_id: str, values: Values, *, closes: bool) -> Row:
    return (sequence, item_id, *values, int(closes), checksum(sequence, item_id, values, int(closes)))


def lost_row(sequence: int) -> Row:
    """Stand in for an entry that was lost."""
    return row_of(sequence, LOST, (None, None, None, None, None), closes=True)


def checksum(sequence: int, item_id: str, values: Values, closes: int) -> int:
    *texts, embedding = values
    return zlib.crc32(embedding or b"", zlib.crc32(json.dumps([sequence, item_id, *texts, closes]).encode()))


def _checksum_1(item_id: str, values: Values) -> int:
    *texts, embedding = values
    return zlib.crc32(embedding or b"", zlib.crc32(json.dumps([item_id, *texts]).encode()))


def is_true(row: Sequence[Any], format_: int) -> bool:
    """Return whether a row is as it was written."""
    sequence, item_id, *values, closes, stated = row
    try:
        if format_ == 1:
            return bool(_checksum_1(item_id, tuple(values)) == stated)
        return bool(checksum(sequence, item_id, tuple(values), closes) == stated)
    except TypeError:  # a value has become one of another type
        return False


def damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(path, f"is damaged ({what}): {_way_out(path)}")


def ends_early(path: Path, last: int, mark: Mark) -> ArtifactError:
    text = f"ends with entry {last}, and entries up to {mark.sequence} were acknowledged"
    return ArtifactError(path, f"{text}: {_way_out(path)}")


def _way_out(path: Path) -> str:
    return f"`vmmr-search repair {path.parent}` saves what can be read of it; a backup may have more"


@dataclass(frozen=True)
class Snapshot:
    """What a connection sees of a journal within one transaction."""

    connection: sqlite3.Connection
    path: Path
    format: int

    @classmethod
    def of(cls, connection: sqlite3.Connection, path: Path) -> "Snapshot":
        ((found,),) = connection.execute("PRAGMA user_version")
        return cls(connection, path, found)

    def check(self, mark: Mark | None) -> None:
        """Raise ArtifactError if something that was acknowledged is missing; `mark` was read before the transaction began."""
        if mark is None:
            if self.format > 1:
                raise journal_mark.missing(self.path)
            return
        if (last := self.last) < mark.sequence:
            raise ends_early(self.path, last, mark)
        if (pruned := self.meta.pruned) < mark.pruned:
            raise damaged(self.path, f"it says it was pruned up to {pruned}, and that was {mark.pruned} already")

    @property
    def meta(self) -> Meta:
        """Raises ArtifactError if it is not what was written."""
        rows = dict(self.connection.execute("SELECT name, value FROM meta"))
        stated = rows.pop("checksum", None)
        try:
            meta = Meta(**rows)
            if self.format == 1 or meta.checksum == stated:
                return meta
        except TypeError:  # a name or a value has become another
            pass
        raise damaged(self.path, "`meta` is not what was written")

    @property
    def last(self) -> int:
        """Number of the last entry that there ever was. Raises ArtifactError if SQLite says that it gave others since."""
        ((highest,),) = self.connection.execute("SELECT max(sequence) FROM entries")
        last = max(highest or 0, self.meta.pruned)
        if self.format == 1:
            given = self.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
            if given is None or given[0] != last:
                raise damaged(
                    self.path, f"it ends with entry {last}, and the last number given is {given and given[0]}"
                )
        return last

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
        if (end := after + len(found)) < (last := self.last):
            raise damaged(self.path, f"entries {end + 1} to {last} are missing")
        if found and not found[-1][-2]:
            raise damaged(self.path, f"entry {end} is its last, and ends no write")
        return found

    def verify(self) -> None:
        """Raise ArtifactError if tables or indexes are not as they were made, or do not fit each other."""
        schema = dict(self.connection.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"))
        if schema != _schema(self.format):
            raise damaged(self.path, "its tables are not those that were made")
        ((said,),) = self.connection.execute("PRAGMA integrity_check(1)")
        if said != "ok":
            raise damaged(self.path, said.replace("\n", " ").strip())


@cache
def _schema(format_: int) -> dict[str, str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_TABLES.format(_MORE[format_]))
        return dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"))


def write_meta(connection: sqlite3.Connection, meta: Meta) -> None:
    values = {"model": meta.model, "dimension": meta.dimension, "pruned": meta.pruned, "checksum": meta.checksum}
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def set_up(connection: sqlite3.Connection, meta: Meta) -> None:
    """Make the tables, within a transaction."""
    for statement in filter(str.strip, _TABLES.format(_MORE[FORMAT]).split(";")):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    write_meta(connection, meta)


def upgrade(old: Snapshot) -> None:
    """Make a journal of format 1 one of format 2, within a transaction that writes.

    Raises ArtifactError if it is damaged: a new checksum would hide that.
    """
    connection, meta = old.connection, old.meta
    old.verify()
    rows = old.whole_writes(meta.pruned, 1 << 62)
    mark = Mark(old.last, meta.pruned)
    journal_mark.create(old.path, mark)
    for table in ("entries", "meta"):
        connection.execute(f"DROP TABLE {table}")
    set_up(connection, meta)
    connection.executemany(INSERT, (row_of(row[0], row[1], row[2:7], closes=bool(row[7])) for row in rows))


def pruned(meta: Meta, upto: int) -> Meta:
    return replace(meta, pruned=max(meta.pruned, upto))
