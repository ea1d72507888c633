"""`journal.db`: how it is opened, and what its errors mean; `journal_format` says what is in it.

SQLite in WAL mode with synchronous=FULL: a transaction is on the disk once its COMMIT has returned, and a power cut or a
kill leaves whole transactions alone (https://sqlite.org/wal.html). Beside it, `journal_mark` keeps what was acknowledged.

No process that has the journal open may open and close the file by other means, not even to read it: that ends all its locks
on it, SQLite's too (https://sqlite.org/howtocorrupt.html, 2.2). To copy it, use SQLite's backup.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from urllib.parse import quote

from search_svc.index import journal_absence, journal_mark, turns
from search_svc.index.journal_errors import damaged, error_code, gone, translate_sqlite_errors, unusable
from search_svc.index.journal_format import APPLICATION, FORMAT, Meta, set_up
from search_svc.index.journal_lease import JournalLease
from search_svc.index.journal_mark import Mark
from search_svc.index.journal_snapshot import Snapshot, reading, upgrade
from svckit.artifact import ArtifactError, flush_one

FILE = "journal.db"
_READ_BUSY_S = 5.0
_POLL_S = 0.001
MOST_FORMATS = 15
"""Far more than there will be: a number beyond is no later format."""
_CHECKPOINT_PAGES = 256
"""Of the write-ahead log: what is in the database is not lost with the log."""


class _Leased(sqlite3.Connection):
    """A connection with a lease: nobody repairs the journal until it is closed."""

    lease: JournalLease | None = None

    def close(self) -> None:
        super().close()
        if self.lease:
            self.lease.release()


class _Alone(_Leased):
    """A connection of a process that cannot share memory with writers, for there were none: it does not see what they write later."""

    as_it_was: tuple[int, int] | None


def outdated(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether somebody may have written to the journal since it was opened as one that nobody writes to."""
    return isinstance(connection, _Alone) and (_has_log(path) or connection.as_it_was != _as_it_is(path))


def files(path: Path) -> tuple[Path, Path, Path]:
    """Return the paths of the database, and of the log and the shared memory that SQLite keeps beside it while it is in use."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def size(path: Path) -> int:
    """Return the bytes of all the files of a journal. SQLite makes and removes some as it likes."""
    return sum(map(_size, files(path)))


def has_content(path: Path) -> bool:
    """Return whether the database or the log of a journal holds anything."""
    return any(_size(file) for file in files(path)[:2])


def repaired(path: Path) -> Path:
    """Return the path of a repaired journal until it has taken the place of the damaged one."""
    return path.with_name(f".{path.name}.repaired")


def kept(path: Path) -> Path:
    """Return a name, which no file has, to keep a damaged file of a journal under."""
    name = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(place for place in map(path.with_name, names) if not place.exists())


def connect_to_read(path: Path) -> sqlite3.Connection | None:
    """Open the journal to read it; None if there is none yet, or only the beginnings of one. Raises ArtifactError if it cannot be read."""
    with translate_sqlite_errors(path):
        return _readable(path)


def connect_to_write(path: Path, model: str, dimension: int, after: int) -> sqlite3.Connection:
    """Open the journal to write to it; make it, for embeddings of that model, if there is none.

    The entries of a new one are numbered from `after` + 1 on. One of an earlier format is upgraded. Raises sqlite3.Error or OSError,
    or ArtifactError if it is damaged.
    """
    _refuse_half_repaired(path)
    mark = journal_mark.read(path)
    refuse_missing(path, mark, there=_is_begun(path))
    with _log_kept(path, mark):
        return _checked_writer(path, mark, Meta(model, dimension, after))


def _checked_writer(path: Path, mark: Mark | None, new: Meta) -> sqlite3.Connection:
    connection = _connect(path, "rwc")
    with _closed_on_error(connection):
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        if not (found := _format(connection, path)):
            refuse_missing(path, mark, there=False)
            meta = replace(new, pruned=max(new.pruned, mark.sequence if mark else 0))
            journal_mark.create(path, Mark(meta.pruned, meta.pruned))
            _make(connection, path, meta)
        elif found < FORMAT:
            _upgrade(connection, path)
        with reading(connection, path, mark) as snapshot:
            snapshot.verify()
    return connection


def later_format(path: Path, found: int) -> ArtifactError:
    """Return the error for a journal that a later vmmr-search wrote."""
    text = f"has format {found}; this vmmr-search reads {FORMAT}: use the one that wrote it"
    return ArtifactError(path, f"{text}. If none did, it is damaged, and a backup helps")


def connect_to_mend(path: Path) -> sqlite3.Connection:
    """Open a journal to write to it without asking whether it has all that was acknowledged."""
    _refuse_half_repaired(path)
    connection = _connect(path, "rw")
    with _closed_on_error(connection):
        connection.execute("PRAGMA synchronous = FULL")
    return connection


def new(path: Path, meta: Meta) -> sqlite3.Connection:
    """Make a journal without a mark, under a name at which nobody looks for one."""
    connection = _connect(path, "rwc")
    with _closed_on_error(connection):
        _make(connection, path, meta)
    return connection


def refuse_missing(path: Path, mark: Mark | None, *, there: bool) -> None:
    """Raise ArtifactError if there is no journal, and entries were acknowledged that only a journal can hold, or a version tells that there was one."""
    if there:
        return
    if mark and mark.needs_journal:
        raise gone(path, mark)
    journal_absence.refuse(path, mark, log=_has_log(path))


def mark_copy(path: Path) -> None:
    """Put a mark, and a writer's lock, beside a copy that SQLite has made of a journal: all that it holds counts as acknowledged."""
    with translate_sqlite_errors(path), closing(_alone(path)) as connection:
        journal_mark.create(path, Snapshot.of(connection, path).mark())
    turns.make_lock(path)


def checkpoint(path: Path) -> None:
    """Put what is in the write-ahead log into the database, as far as nobody reads it just now."""
    if not (_is_begun(path) and _has_log(path)):
        return
    # A journal that is damaged, or being repaired, keeps its log: a repair may find more in it than SQLite.
    with suppress(sqlite3.Error, ArtifactError):
        with _log_kept(path, journal_mark.read(path)):
            pass
        with closing(_connect(path, "rw")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def _log_kept(path: Path, mark: Mark | None) -> Iterator[None]:
    """Raise ArtifactError if the journal lacks what was acknowledged. Within the block nobody's closing it removes the log.

    Of a damaged log SQLite sees the beginning alone, and the last connection that could write removes it whole when it is closed. One that
    only reads does not, and while it is open, no other is the last.
    """
    reader = _readable(path)
    if reader is None:
        yield
        return
    with closing(reader):
        with reading(reader, path, mark):
            pass
        yield


def _readable(path: Path) -> sqlite3.Connection | None:
    _refuse_half_repaired(path)
    if not _is_begun(path):
        return None
    connection = _read_only(path)
    with _closed_on_error(connection):
        if _format(connection, path):
            return connection
    connection.close()
    return None


def _is_begun(path: Path) -> bool:
    """Whether there is a file that is not empty: beside an empty one SQLite removes the log, even to read it."""
    return _size(path) > 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from error


def _refuse_half_repaired(path: Path) -> None:
    """Raise ArtifactError if a repair was begun: what is written now would be lost when it goes on."""
    if repaired(path).exists():
        raise ArtifactError(path, f"its repair was begun and not ended: `vmmr-search repair {path.parent}` ends it")


def _connect(path: Path, mode: str, more: str = "", factory: type[_Leased] = _Leased) -> sqlite3.Connection:
    # One in the making, by a repair, has another name.
    lease = JournalLease(path) if path.name == FILE else None
    address = f"file:{quote(str(path.absolute()))}?mode={mode}{more}"
    try:
        connection = sqlite3.connect(
            address, timeout=_READ_BUSY_S, isolation_level=None, check_same_thread=False, factory=factory, uri=True
        )
    except BaseException:
        if lease:
            lease.release()
        raise
    connection.lease = lease
    return connection


@contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _read_only(path: Path) -> sqlite3.Connection:
    """Open a journal to read it. SQLite shares memory with writers through a file beside it; if it can't make one, nobody writes now."""
    connection = _connect(path, "ro")
    with _closed_on_error(connection):
        try:
            connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError as error:
            unmade = error_code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
            if not unmade or _has_log(path):
                raise
        else:
            return connection
    connection.close()
    return _alone(path)


def _alone(path: Path) -> sqlite3.Connection:
    now = _as_it_is(path)
    connection = _connect(path, "ro", "&immutable=1", factory=_Alone)
    assert isinstance(connection, _Alone)
    connection.as_it_was = now
    return connection


def _has_log(path: Path) -> bool:
    """Whether the log holds anything: SQLite may leave an empty one when it stops."""
    return _size(files(path)[1]) > 0


def _as_it_is(path: Path) -> tuple[int, int] | None:
    """Return the time and the size of the file, which change when somebody writes; None if it is gone."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size
    return None


def _format(connection: sqlite3.Connection, path: Path) -> int:
    """Return the format; 0 if the file is new. Raise ArtifactError if it is no journal that this code knows."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((found,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    if not tables:
        return 0
    if application != APPLICATION:
        raise damaged(path, "it says that it is an SQLite file of another program")
    if FORMAT < found <= MOST_FORMATS:
        raise later_format(path, found)
    if not 1 <= found <= FORMAT:
        raise damaged(path, f"it says that its format is {found}")
    return int(found)


def _make(connection: sqlite3.Connection, path: Path, meta: Meta) -> None:
    """Make the tables. Another process may do so at once, and SQLite does not wait for it in all steps."""
    end = time.monotonic() + _READ_BUSY_S
    while True:
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded before there are tables
            connection.execute("PRAGMA journal_mode = WAL")
            _set_up(connection, meta)
        except sqlite3.OperationalError as error:
            if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(_POLL_S)
        else:
            flush_one(path.parent)
            return


def _set_up(connection: sqlite3.Connection, meta: Meta) -> None:
    with _at_once(connection):
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            set_up(connection, meta)


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    with _at_once(connection):
        snapshot = Snapshot.of(connection, path)
        if snapshot.format < FORMAT:
            upgrade(snapshot)


@contextmanager
def _at_once(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block in one transaction, which waits for those of other processes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
