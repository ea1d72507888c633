"""The journal of an index: what was written and deleted since its versions were built.

One file, `journal.db`, beside `versions/`, made by the first write; docs/live.md says what it promises. The gallery is a
version and the entries after the version's `journal_sequence`, in order: the last entry of an item counts.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vmmr.label_names import canonical

from search_svc.dataset.cuts import Cut
from search_svc.index import journal_file, journal_format, journal_mark
from search_svc.index.file_ids import FileId, file_id
from search_svc.index.journal_errors import older, replaced, translate_sqlite_errors
from search_svc.index.journal_format import Row
from search_svc.index.journal_snapshot import Snapshot, reading
from search_svc.index.last_entries import ids_of_batch, ids_of_label, last_row, last_rows_by_id
from svckit.artifact import ArtifactError

if TYPE_CHECKING:
    import sqlite3


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
    cut: Cut | None = None
    """The part of the photo that the embedding is of; None if it is not known."""


@dataclass(frozen=True)
class Entry:
    sequence: int
    item_id: str
    item: StoredItem | None
    """None: it was deleted."""


class Journal:
    """Reads the journal of an index, which may not be there yet. Any number of processes may; thread-safe."""

    def __init__(self, path: Path, on_error: Callable[[ArtifactError], None] = lambda _: None) -> None:
        """`on_error` hears of each error that reading it has raised."""
        self.path = path
        self._on_error = on_error
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: FileId | None = None
        self._seen: int | None = None
        self._verified = False

    @classmethod
    def open(cls, index_dir: Path, on_error: Callable[[ArtifactError], None] = lambda _: None) -> Self:
        """Raises ArtifactError, naming the file and the reason, if there is a journal and it is damaged.

        That includes one that ends before what was acknowledged. Its entries are checked when they are read, and its indexes,
        once, before they are asked.
        """
        journal = cls(index_dir / journal_file.FILE, on_error)
        try:
            with journal._snapshot() as snapshot:
                if snapshot and snapshot.last > journal._marked().sequence:
                    # Nobody was told of its end, which may be of another index's log, and the entry that the mark names another page's.
                    snapshot.verify()
                    journal._verified = True
        except BaseException:
            journal.close()
            raise
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
        with self._snapshot() as snapshot:
            return snapshot.meta.model if snapshot else None

    @property
    def dimension(self) -> int | None:
        with self._snapshot() as snapshot:
            return snapshot.meta.dimension if snapshot else None

    @property
    def pruned(self) -> int:
        """Entries up to this sequence number are gone, at least in part."""
        with self._snapshot() as snapshot:
            return snapshot.meta.pruned if snapshot else self._marked().pruned

    def verify(self) -> None:
        """Raise ArtifactError if tables and indexes do not fit each other: an entry that an index lacks would not be found."""
        if self._verified:
            return
        with self._snapshot() as snapshot:
            if snapshot:
                snapshot.verify()
        self._verified = True

    def holds(self, upto: int) -> bool:
        """Return whether there are entries up to a sequence number."""
        return bool(self._find("SELECT 1 FROM entries WHERE sequence <= ? LIMIT 1", upto))

    def sequence(self) -> int:
        """Sequence number of the last entry that there ever was; 0 if there was none."""
        with self._snapshot() as snapshot:
            return snapshot.last if snapshot else self._marked().sequence

    def lost(self) -> int:
        """Entries that were acknowledged and are lost, of those that have not been pruned."""
        self.verify()
        rows = self._find("SELECT count(*) FROM entries WHERE item_id = ?", journal_format.LOST)
        return int(rows[0][0]) if rows else 0

    def changed(self) -> bool:
        """Whether anybody has committed anything since this was asked before; costs microseconds."""
        with self._lock, translate_sqlite_errors(self.path):
            connection = self._connected()
            found = connection.execute("PRAGMA data_version").fetchone()[0] if connection else None
            before, self._seen = self._seen, found
            return found != before

    def read(self, after: int, limit: int) -> list[Entry]:
        """The entries after a sequence number, in order: so many, and then as many as end the write of the last.

        Those that were lost are left out, but for one at the end. Raises ArtifactError if one is damaged or missing, if
        some of those that were asked for were pruned, or if it ends before the number.
        """
        with self._snapshot() as snapshot:
            pruned = snapshot.meta.pruned if snapshot else self._marked().pruned
            if after < pruned:
                reason = f"its entries up to {pruned} were pruned, and those after {after} are asked for"
                remedy = (
                    "no version that holds less can be served with it: `vmmr-search rollback` names one that holds them, if it is there; "
                    "`vmmr-search restore` makes an index of a backup"
                )
                raise ArtifactError(self.path, reason, remedy)
            if snapshot is None:
                return []
            if after > snapshot.last:
                raise older(self.path, snapshot.last, after)
            entries = [_entry(row) for row in snapshot.whole_writes(after, limit)]
        return [each for each in entries[:-1] if each.item_id != journal_format.LOST] + entries[-1:]

    def last(self, item_id: str, after: int) -> Entry | None:
        """The last entry of an item, after a sequence number."""
        with self._verified_snapshot() as snapshot:
            row = last_row(snapshot, item_id, after) if snapshot else None
        return _entry(row) if row else None

    def last_by_id(self, after_id: str, after: int, limit: int) -> list[Entry]:
        """The last entries, after a sequence number, of the items with ids after that one, in the order of their ids."""
        with self._verified_snapshot() as snapshot:
            rows = last_rows_by_id(snapshot, after_id, after, limit) if snapshot else []
        return [_entry(row) for row in rows]

    def of_label(self, label: str, after: int) -> list[str]:
        """Ids of the items that have the label by their last entry, after a sequence number; in order of writing."""
        with self._verified_snapshot() as snapshot:
            return ids_of_label(snapshot, label, after) if snapshot else []

    def of_batch(self, batch_id: str, after: int) -> list[str]:
        """Like `of_label`, for a batch; of the empty one, none."""
        with self._verified_snapshot() as snapshot:
            return ids_of_batch(snapshot, batch_id, after) if snapshot else []

    def _find(self, sql: str, *values: Any) -> list[Any]:
        """Return the rows of a query; none if there is no journal."""
        with self._snapshot() as snapshot:
            return snapshot.connection.execute(sql, values).fetchall() if snapshot else []

    def _verified_snapshot(self) -> AbstractContextManager[Snapshot | None]:
        """As `_snapshot`, for what asks the indexes."""
        self.verify()
        return self._snapshot()

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot | None]:
        """None if there is no journal. Raises ArtifactError if it lacks what was acknowledged."""
        with self._told(), self._lock, translate_sqlite_errors(self.path):
            mark = journal_mark.read(self.path)
            connection = self._connected()
            if connection is None:
                journal_file.refuse_missing(self.path, mark, there=False)
                yield None
                return
            with self._replaced_if_so(), reading(connection, self.path, mark) as snapshot:
                yield snapshot

    @contextmanager
    def _replaced_if_so(self) -> Iterator[None]:
        """Tell of what does not fit the mark that the file was replaced, where it was since it was opened."""
        try:
            yield
        except ArtifactError as error:
            if file_id(self.path) != self._file:
                raise replaced(self.path) from error
            raise

    def _marked(self) -> journal_mark.Mark:
        """Return what is known of a journal that is not there: one that was restored need not be."""
        return journal_mark.read(self.path) or journal_mark.NOTHING

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except ArtifactError as error:
            self._on_error(error)
            raise

    def _connected(self) -> "sqlite3.Connection | None":
        if self._connection and journal_file.outdated(self._connection, self.path):
            self._connection.close()
            self._connection = self._seen = None
        if self._connection is None:
            self._connection = journal_file.connect_to_read(self.path)
            self._file = file_id(self.path)
        return self._connection


def item_of(row: Row) -> StoredItem | None:
    """Return the item of a row that is as it was written; None if it was deleted.

    Older journals have labels as they were given, which may be in another form of Unicode.
    """
    label, uri, batch_id, text, embedding = row[2:7]
    if label is None:
        return None
    attributes, cut = journal_format.read_attributes(text)
    return StoredItem(canonical(label), uri, batch_id, attributes, embedding, cut)


def _entry(row: Row) -> Entry:
    return Entry(row[0], row[1], item_of(row))
