"""What is in `journal.db`: its tables, and how it is told whether they are as they were written.

Rows of `entries`, whose numbers have no gaps:

```
sequence    1, 2, 3 ...; never given twice, not even after all was pruned
item_id     the item that was written or deleted; empty for an entry that was lost, which changes nothing
label, uri, batch_id, attributes, embedding (float16, little-endian)     NULL where it was deleted
checksum    CRC-32 of all the rest of the row: SQLite does not notice a bit that flipped within a value
closes      1 in the last row of a write, which is whole or not at all
```

`attributes` is a JSON object; of an item whose cut is known, a list of that object and the cut: [left, top, right, bottom, car_score, no_car_found].
So the checksum covers the cut, an entry without one is what it was before there were cuts, and the table is the same.

`meta` has the model and the dimension of the embeddings, the entry up to which all was pruned, and a checksum of these.
In format 1, the checksum of an entry did not cover its number nor `closes`, and `meta` had none; SQLite kept the last number.
"""

import dataclasses
import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any

from search_svc.dataset.cuts import Cut

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
        return zlib.crc32(json.dumps([self.model, self.dimension, self.pruned]).encode())


def attributes_text(attributes: Mapping[str, str], cut: Cut | None) -> str:
    """Return what stands in the column `attributes`."""
    said: Any = dict(attributes)
    if cut:
        said = [said, dataclasses.astuple(cut)]
    return json.dumps(said, sort_keys=True, ensure_ascii=False)


def read_attributes(text: str) -> tuple[dict[str, str], Cut | None]:
    """Return the attributes and the cut in a text that `attributes_text` made, of this version or of one before it."""
    found = json.loads(text)
    if isinstance(found, list):
        attributes, cut = found
        return attributes, Cut(*cut)
    return found, None


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


def true_format(row: Sequence[Any]) -> int:
    """Return the newest format in which a row is as it was written; 0 if there is none."""
    return next((form for form in (FORMAT, 1) if is_true(row, form)), 0)


@cache
def schema(format_: int) -> dict[str, str]:
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
