"""The journal of an index: what was written and deleted since its versions were built.

One file, `journal.db`, beside `versions/`, made by the first write; docs/live.md says what it promises. The gallery is a
version and the entries after the version's `journal_sequence`, in order: the last entry of an item counts.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from search_svc.index import journal_file
from svckit.artifact import ArtifactError

if TYPE_CHECKING:
    import sqlite3

_WHOLE_WRITES = f"""
SELECT {journal_file.COLUMNS} FROM entries WHERE sequence > ? AND sequence <= (
    SELECT sequence FROM entries WHERE closes AND sequence >= (
        SELECT max(sequence) FROM (SELECT sequence FROM entries WHERE sequence > ? ORDER BY sequence LIMIT ?)
    ) ORDER BY sequence LIMIT 1
) ORDER BY sequence
"""


@dataclass(frozen=True)
class StoredItem:
    """A labelled photo of the gallery."""

    label: str
    uri: str
    batch_id: str
    """Empty if it was added in none."""
    attributes: Mapping[str, str] = field(hash=False)
    embedding: bytes = field(repr=False)
    """float16, little-endian."""


@dataclass(frozen=True)
class Entry:
    sequence: int
    item_id: str
    item: StoredItem | None
    """None: it was deleted."""


class Journal:
    """Reads the journal of an index, which may not be there yet. Any number of processes may; thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._seen: int | None = None

    @classmethod
    def open(cls, index_dir: Path) -> Self:
        """Raises ArtifactError, naming the file and the reason, if there is a journal and it cannot be read."""
        journal = cls(index_dir / journal_file.FILE)
        journal._find("SELECT 1")
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = None

    @property
    def model(self) -> str | None:
        """Fingerprint of the model that made the embeddings; None if there is no journal."""
        model: str | None = self._meta("model", None)
        return model

    @property
    def dimension(self) -> int | None:
        dimension: int | None = self._meta("dimension", None)
        return dimension

    @property
    def pruned(self) -> int:
        """Entries up to this sequence number are gone, at least in part."""
        return int(self._meta("pruned", 0))

    def holds(self, upto: int) -> bool:
        """Whether there are entries up to a sequence number."""
        return bool(self._find("SELECT 1 FROM entries WHERE sequence <= ? LIMIT 1", upto))

    def sequence(self) -> int:
        """Sequence number of the last entry that there ever was; 0 if there was none."""
        rows = self._find("SELECT seq FROM sqlite_sequence WHERE name = 'entries'")
        return int(rows[0][0]) if rows else 0

    def changed(self) -> bool:
        """Whether anybody has committed anything since this was asked before; costs microseconds."""
        rows = self._find("PRAGMA data_version")
        before, self._seen = self._seen, rows[0][0] if rows else None
        return self._seen != before

    def read(self, after: int, limit: int) -> list[Entry]:
        """The entries after a sequence number, in order: so many, and then as many as end the write of the last.

        Raises ArtifactError if one is damaged, or if some of those that were asked for were pruned.
        """
        rows = self._find(_WHOLE_WRITES, after, after, limit)
        self._check_kept(after)
        return [self._entry(row) for row in rows]

    def last(self, item_id: str, after: int) -> Entry | None:
        """The last entry of an item, after a sequence number."""
        sql = f"SELECT {journal_file.COLUMNS} FROM entries WHERE item_id = ? AND sequence > ? ORDER BY sequence DESC LIMIT 1"
        rows = self._find(sql, item_id, after)
        return self._entry(rows[0]) if rows else None

    def last_by_id(self, after_id: str, after: int, limit: int) -> list[Entry]:
        """The last entries, after a sequence number, of the items with ids after that one, in the order of their ids."""
        later = "SELECT 1 FROM entries AS later WHERE later.item_id = e.item_id AND later.sequence > e.sequence"
        sql = f"SELECT {journal_file.COLUMNS} FROM entries AS e WHERE item_id > ? AND sequence > ? AND NOT EXISTS ({later})"
        return [self._entry(row) for row in self._find(f"{sql} ORDER BY item_id LIMIT ?", after_id, after, limit)]

    def of_label(self, label: str, after: int) -> list[str]:
        """Ids of the items that have the label by their last entry, after a sequence number; in order of writing."""
        return self._ids("label = ?", label, after)

    def of_batch(self, batch_id: str, after: int) -> list[str]:
        """As `of_label`, of a batch, which is not the empty one."""
        return self._ids("batch_id <> '' AND batch_id = ?", batch_id, after)

    def _ids(self, condition: str, value: str, after: int) -> list[str]:
        return [row[0] for row in self._find(last_entries(condition), value, after)]

    def _check_kept(self, after: int) -> None:
        if after < self.pruned:
            reason = f"its entries up to {self.pruned} were pruned, and those after {after} are asked for"
            raise ArtifactError(self.path, reason)

    def _meta(self, name: str, default: Any) -> Any:
        rows = self._find("SELECT value FROM meta WHERE name = ?", name)
        return rows[0][0] if rows else default

    def _entry(self, row: Sequence[Any]) -> Entry:
        return entry(row, self.path)

    def _find(self, sql: str, *values: Any) -> list[Any]:
        """Rows; none if there is no journal."""
        with self._lock, journal_file.told(self.path):
            if self._connection and journal_file.outdated(self._connection, self.path):
                self._connection.close()
                self._connection = self._seen = None
            if self._connection is None:
                self._connection = journal_file.connect_to_read(self.path)
            return [] if self._connection is None else self._connection.execute(sql, values).fetchall()


def last_entries(condition: str) -> str:
    """SQL for the ids of items of whose last entry, after a sequence number, a condition with one value holds."""
    later = "SELECT 1 FROM entries AS later WHERE later.item_id = e.item_id AND later.sequence > e.sequence"
    return f"SELECT item_id FROM entries AS e WHERE {condition} AND sequence > ? AND NOT EXISTS ({later}) ORDER BY sequence"


def entry(row: Sequence[Any], path: Path) -> Entry:
    """Of a row of COLUMNS. Raises ArtifactError if it is not what was written."""
    sequence, item_id, label, uri, batch_id, attributes, embedding, stated = row
    if journal_file.checksum(item_id, (label, uri, batch_id, attributes, embedding)) != stated:
        raise journal_file.damaged(path, f"entry {sequence} is not what was written")
    if label is None:
        return Entry(sequence, item_id, None)
    return Entry(sequence, item_id, StoredItem(label, uri, batch_id, json.loads(attributes), embedding))
