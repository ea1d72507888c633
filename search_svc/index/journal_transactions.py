"""Transactions that write to the journal: each in its turn, checked when it begins, and on the disk when it has ended.

On the disk means both: SQLite's COMMIT has returned, and `journal.mark` says that it was acknowledged.
"""

import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from search_svc.index import journal_format, journal_mark
from search_svc.index.file_ids import file_id
from search_svc.index.journal_errors import CommitError, error_code, replaced
from search_svc.index.journal_file import connect_to_write, files
from search_svc.index.journal_mark import MarkFile
from search_svc.index.journal_snapshot import Snapshot, mark_of
from search_svc.index.turns import Turns

LONGEST_WAIT_S = 10.0
"""Seconds that a transaction waits for other writers at most."""


class JournalTransactions:
    """Writes to a journal through one connection, for one thread at a time. Other processes may write too."""

    def __init__(self, path: Path, model: str, dimension: int, after: int) -> None:
        """Open the journal, or make it, as `connect_to_write` does, and raise what that raises."""
        self._path = path
        with ExitStack() as opened:
            self.connection = opened.enter_context(closing(connect_to_write(path, model, dimension, after)))
            self._turns = opened.enter_context(closing(Turns(self.connection, path)))
            self._mark = opened.enter_context(MarkFile(path))
            self._names = [str(name) for name in files(path)[:2]]
            self._files = [file_id(name) for name in self._names]
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()

    @contextmanager
    def transaction(self, deadline: float = math.inf) -> Iterator[Snapshot]:
        """Yield the journal as it is before the block, which may write to it; what it wrote is acknowledged when the block has ended.

        Waits for other writers until the deadline, a time of `time.monotonic`, and no longer than LONGEST_WAIT_S. If the block raises,
        nothing is written. Raises ArtifactError if the journal lacks what was acknowledged: nothing may be added to it then; CommitError if
        what was written may be there after a crash; another sqlite3.Error if it is not.
        """
        self._turns.begin(min(deadline, time.monotonic() + LONGEST_WAIT_S))
        try:
            self._check_in_place()
            snapshot = Snapshot.of(self.connection, self._path)
            # Nobody else commits now, so the mark cannot have passed what is seen here.
            mark = self._mark.read()
            snapshot.check(mark)
            if snapshot.last > mark.sequence:
                # Nobody was told of its end, which may not be on the disk: with any change SQLite flushes the whole log.
                journal_format.write_meta(self.connection, snapshot.meta)
            yield snapshot
            self._commit()
        except BaseException:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise

    def _check_in_place(self) -> None:
        """Raise ReplacedError if the journal or its log is not the file any more that this connection has open."""
        if [file_id(name) for name in self._names] != self._files:
            raise replaced(self._path)

    def _commit(self) -> None:
        mark = mark_of(self.connection)
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            if error_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
                raise
            raise CommitError(str(error)) from error
        try:
            self._mark.advance(mark)
        except OSError as error:
            raise CommitError(f"{journal_mark.NAME}: {error.strerror or error}") from error
