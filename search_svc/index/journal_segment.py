"""Segments of a journal: the entries after one number up to another, in a file of their own, which is a journal itself.

Segments that follow each other are the journal again. Which of them are still what the journal says is told by a digest of the
entries' checksums, so none of them has to be read for that.
"""

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from search_svc.index import journal_file, journal_mark
from search_svc.index.journal_errors import damaged, error_code, translate_sqlite_errors
from search_svc.index.journal_format import FORMAT, INSERT, Meta, Row, row_of
from search_svc.index.journal_snapshot import Snapshot, reading

_END_OF_WRITES = "SELECT coalesce(max(sequence), 0) FROM entries WHERE closes = 1"


@dataclass(frozen=True)
class Segment:
    after: int
    last: int
    digest: str
    """sha256 of the checksums of the entries after `after` up to `last`."""

    def __len__(self) -> int:
        return self.last - self.after


@contextmanager
def open_source(path: Path) -> Iterator[Snapshot | None]:
    """Yield a journal as it is at one moment, found to be as it was made; None if there is none.

    Raise ArtifactError, naming it, if it is damaged, or lacks what was acknowledged.
    """
    mark = journal_mark.read(path)
    with translate_sqlite_errors(path):
        connection = journal_file.connect_to_read(path)
        if connection is None:
            journal_file.refuse_missing(path, mark, there=False)
            yield None
            return
        with closing(connection), reading(connection, path, mark) as snapshot:
            snapshot.verify()
            yield snapshot


def missing_from(snapshot: Snapshot, copied: Sequence[Segment]) -> tuple[list[Segment], list[Segment]]:
    """Return which of the segments that were copied still serve, and which to copy, so that together they are the journal.

    A new segment takes the place of those before it that are no larger: so there are never more than a few dozen of them,
    and an entry is copied again only as often as their size doubles.
    """
    kept = _leading(snapshot, copied)
    end = kept[-1].last if kept else snapshot.meta.pruned
    if end == snapshot.last:
        return kept, []
    while kept and len(kept[-1]) <= snapshot.last - end:
        end = kept.pop().after
    return kept, [Segment(end, snapshot.last, _digest(snapshot, end, snapshot.last))]


def parting(snapshot: Snapshot | None, copied: Sequence[Segment]) -> int | None:
    """Return the number after which the journal says otherwise than segments that were copied of it, or lacks entries of them; None if it doesn't.

    What was pruned since is not compared.
    """
    for segment in copied:
        if snapshot is None or segment.last > snapshot.last:
            return segment.after
        if segment.after >= snapshot.meta.pruned and segment.digest != _digest(snapshot, segment.after, segment.last):
            return segment.after
    return None


def _leading(snapshot: Snapshot, copied: Sequence[Segment]) -> list[Segment]:
    """Return the segments that follow each other from where the journal begins, and are what it says."""
    kept: list[Segment] = []
    end = snapshot.meta.pruned
    for segment in copied:
        if segment.after == end and segment.digest == _digest(snapshot, segment.after, segment.last):
            kept.append(segment)
            end = segment.last
    return kept


def write(snapshot: Snapshot, segment: Segment, path: Path) -> None:
    """Copy a segment's entries to a file. Raise ArtifactError, naming the journal, if one is damaged or missing."""
    meta = Meta(snapshot.meta.model, snapshot.meta.dimension, segment.after)
    with translate_sqlite_errors(path), closing(journal_file.new(path, meta)) as connection:
        _insert(connection, _whole(snapshot, segment))


def join(parts: Iterable[tuple[Path, Segment]], meta: Meta, upto: int, path: Path) -> None:
    """Make a journal of segments, with a mark. It begins after `meta.pruned`, and ends with the last write that had ended by `upto`.

    Raise ArtifactError, naming the segment, if one is damaged.
    """
    with closing(journal_file.new(path, meta)) as connection:
        for part, segment in parts:
            with _opened(part) as snapshot:
                rows = (row for row in _whole(snapshot, segment) if meta.pruned < row[0] <= upto)
                with _room_for(path):
                    _insert(connection, rows)
        with _room_for(path):
            connection.execute(f"DELETE FROM entries WHERE sequence > ({_END_OF_WRITES})")
    journal_file.mark_copy(path)


@contextmanager
def _opened(path: Path) -> Iterator[Snapshot]:
    with translate_sqlite_errors(path):
        address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, isolation_level=None, uri=True)) as connection:
            yield Snapshot.of(connection, path)


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """Raise OSError, naming the journal that is being made, if its disk is full."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error_code(error) != sqlite3.SQLITE_FULL:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _whole(snapshot: Snapshot, segment: Segment) -> Iterator[Row]:
    """Yield the rows of a segment, in the present format. Raise ArtifactError, naming the file, if one is damaged or missing."""
    expected = segment.after + 1
    with translate_sqlite_errors(snapshot.path):
        for row in snapshot.rows("WHERE sequence > ? AND sequence <= ? ORDER BY sequence", segment.after, segment.last):
            if row[0] != expected:
                break
            yield row if snapshot.format == FORMAT else row_of(row[0], row[1], row[2:7], closes=bool(row[7]))
            expected += 1
    if expected <= segment.last:
        raise damaged(snapshot.path, f"entry {expected} is missing")


def _insert(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    connection.execute("BEGIN")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")


def _digest(snapshot: Snapshot, after: int, last: int) -> str:
    where = "WHERE sequence > ? AND sequence <= ? ORDER BY sequence"
    found = snapshot.connection.execute(f"SELECT sequence, checksum FROM entries {where}", (after, last))
    digest = hashlib.sha256()
    for sequence, checksum in found:
        digest.update(b"%d %d\n" % (sequence, checksum))
    return digest.hexdigest()
