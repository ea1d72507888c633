"""`journal.db`: its tables, how it is opened, and what its errors mean.

SQLite in WAL mode with synchronous=FULL: a transaction is on the disk once its COMMIT has returned, and a power cut or a
kill leaves whole transactions alone (https://sqlite.org/wal.html). Rows of `entries`:

```
sequence    1, 2, 3 ...; never given twice, not even after all was pruned
item_id     the item that was written or deleted
label, uri, batch_id, attributes (JSON), embedding (float16, little-endian)     NULL where it was deleted
checksum    CRC-32 of what precedes: SQLite does not notice a bit that flipped within a value
closes      1 in the last row of a write, which is whole or not at all
```

No process that has the journal open may open and close the file by other means, not even to read it: that ends all its locks
on it, SQLite's too (https://sqlite.org/howtocorrupt.html, 2.2). To copy it, use SQLite's backup.
"""

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from search_svc.index.journal_lease import JournalLease
from svckit.artifact import ArtifactError
from svckit.errors import Reason, ServiceError

FILE = "journal.db"
FORMAT = 1
_APPLICATION = 0x766D6D72  # "vmmr"
_READ_BUSY_S = 5.0
_POLL_S = 0.001
_SETUP = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
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
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {FORMAT};
"""
COLUMNS = "sequence, item_id, label, uri, batch_id, attributes, embedding, checksum"


class _Leased(sqlite3.Connection):
    """Nobody repairs the journal until it is closed."""

    lease: JournalLease | None = None

    def close(self) -> None:
        super().close()
        if self.lease:
            self.lease.release()


class _Alone(_Leased):
    """Of who can share no memory with writers, for there were none: it sees nothing of what others write from then on."""

    as_it_was: tuple[int, int] | None


def outdated(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether somebody may have begun to write to a journal that was opened as one that nobody does."""
    return isinstance(connection, _Alone) and (_has_log(path) or connection.as_it_was != _as_it_is(path))


def files(path: Path) -> tuple[Path, Path, Path]:
    """The database, and what SQLite keeps beside it while it is in use."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def size(path: Path) -> int:
    """Bytes of all of them. SQLite makes and removes them as it likes."""
    total = 0
    for file in files(path):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def repaired(path: Path) -> Path:
    """Where a repaired journal is until it has taken the place of the damaged one."""
    return path.with_name(f".{path.name}.repaired")


def connect_to_read(path: Path) -> sqlite3.Connection | None:
    """None if there is no journal yet, or only the beginnings of one. Raises ArtifactError if it cannot be read."""
    _refuse_half_repaired(path)
    if not path.exists():
        return None
    with told(path):
        connection = _read_only(path)
        if _format(connection, path) == FORMAT:
            return connection
        connection.close()
    return None


def connect_to_write(path: Path, model: str, dimension: int, after: int) -> sqlite3.Connection:
    """Makes the journal, of embeddings of that model, if there is none: its entries are numbered from `after` on.

    Raises sqlite3.Error, or ArtifactError.
    """
    _refuse_half_repaired(path)
    there = path.exists()
    connection = _connect(path, "rwc")
    try:
        connection.execute("PRAGMA synchronous = FULL")
        if _format(connection, path) == 0:
            _make(connection, model, dimension, after)
        if not there:
            flush_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


Values = tuple[str | None, str | None, str | None, str | None, bytes | None]
"""Label, uri, batch_id, attributes and embedding."""


def checksum(item_id: str, values: Values) -> int:
    *texts, embedding = values
    return zlib.crc32(embedding or b"", zlib.crc32(json.dumps([item_id, *texts]).encode()))


def error_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 if the error is not SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: Exception) -> bool:
    """Whether the file is not what SQLite wrote; of text that is none, Python alone takes notice, without a code."""
    if not isinstance(error, sqlite3.Error):
        return False
    return error_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "decode" in str(error)


def damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(path, f"is damaged ({what}): `vmmr-search repair {path.parent}` saves what can be read of it")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """SQLite's errors as ArtifactErrors that name the file."""
    try:
        yield
    except sqlite3.Error as error:
        if is_damage(error):
            raise damaged(path, str(error)) from error
        raise ArtifactError(path, str(error)) from error


class CommitError(sqlite3.OperationalError):
    """COMMIT itself failed, in a way that does not tell whether its last page has reached the disk."""


def commit(connection: sqlite3.Connection) -> None:
    """Raises CommitError if the transaction may be there after a crash; another sqlite3.Error if it is not."""
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if error_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            raise
        raise CommitError(str(error)) from error


def unwritable(path: Path, error: sqlite3.Error | OSError) -> ServiceError:
    """What a caller is told whose write did not get into the journal."""
    if isinstance(error, CommitError):
        text = f"{path.name} cannot be written ({error}): the write may be there after a crash; send it again"
        return ServiceError(Reason.JOURNAL_UNWRITABLE, text)
    code = error_code(error) if isinstance(error, sqlite3.Error) else 0
    if code == sqlite3.SQLITE_FULL:
        text = f"the disk of {path.name} is full: nothing was written"
        return ServiceError(Reason.JOURNAL_FULL, text)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        text = f"{path.name} is being written by another process: nothing was written"
        return ServiceError(Reason.JOURNAL_UNWRITABLE, text, retry_after_s=1.0)
    return ServiceError(Reason.JOURNAL_UNWRITABLE, f"{path.name} cannot be written ({error}): nothing was written")


def _refuse_half_repaired(path: Path) -> None:
    """What was written to the damaged one now would be lost when the repair goes on."""
    if repaired(path).exists():
        raise ArtifactError(path, f"its repair was begun and not ended: `vmmr-search repair {path.parent}` ends it")


def _connect(path: Path, mode: str, more: str = "", factory: type[_Leased] = _Leased) -> sqlite3.Connection:
    # One in the making, by a repair, has another name.
    lease = JournalLease(path) if path.name == FILE else None
    address = f"file:{quote(str(path.absolute()))}?mode={mode}{more}"
    connection = sqlite3.connect(
        address, _READ_BUSY_S, isolation_level=None, check_same_thread=False, factory=factory, uri=True
    )
    connection.lease = lease
    return connection


def flush_folder(path: Path) -> None:
    """So that the file is still in it if the power fails."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_only(path: Path) -> sqlite3.Connection:
    """SQLite shares memory with writers through a file beside the journal. Where it can't make one, nobody writes now."""
    connection = _connect(path, "ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        unmade = error_code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        if not unmade or _has_log(path):
            raise
        return _alone(path)
    return connection


def _alone(path: Path) -> sqlite3.Connection:
    now = _as_it_is(path)
    connection = _connect(path, "ro", "&immutable=1", factory=_Alone)
    assert isinstance(connection, _Alone)
    connection.as_it_was = now
    return connection


def _has_log(path: Path) -> bool:
    return files(path)[1].exists()


def _as_it_is(path: Path) -> tuple[int, int] | None:
    """What is another once somebody has written; None if the file is gone."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size
    return None


def _format(connection: sqlite3.Connection, path: Path) -> int:
    """0 if the file is new. Raises ArtifactError if it is no journal that this code knows."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((found,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    if not tables:
        return 0
    if application != _APPLICATION:
        raise ArtifactError(path, "is an SQLite file, but no journal of an index")
    if found != FORMAT:
        raise ArtifactError(path, f"has format {found}; this vmmr-search reads {FORMAT}: use the one that wrote it")
    return FORMAT


def _make(connection: sqlite3.Connection, model: str, dimension: int, after: int) -> None:
    """Another process may be at it too; SQLite does not wait for it in all steps."""
    end = time.monotonic() + _READ_BUSY_S
    while True:
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded before there are tables
            connection.execute("PRAGMA journal_mode = WAL")
            _set_up(connection, model, dimension, after)
        except sqlite3.OperationalError as error:
            if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(_POLL_S)
        else:
            return


def _set_up(connection: sqlite3.Connection, model: str, dimension: int, after: int) -> None:
    """In one transaction; another process may be at it too."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in filter(str.strip, _SETUP.split(";")):
                connection.execute(statement)
            values = {"model": model, "dimension": dimension, "pruned": after}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('entries', ?)", (after,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
