"""Turns at writing: of processes that write at once, each comes to it.

SQLite's waiting writers try again at intervals, and one that writes without a pause always comes before them: of two, one
was seen to get 50 times the share of the other. Here, the next in line holds a lock that everybody takes before the
database's own; so a process that has just written stands in line behind it.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search_svc.index.journal_errors import error_code
from search_svc.index.locks import locked, unlock

FILE = "journal.lock"
_POLL_S = 0.0002


def make_lock(journal: Path) -> None:
    """Put the lock's file beside a journal that was not made by a writer: `journal_absence` takes it for a word that there was a journal."""
    journal.with_name(FILE).touch()


class Turns:
    """Begins the transactions of one connection that writes."""

    def __init__(self, connection: sqlite3.Connection, journal: Path) -> None:
        """Raises OSError if the lock beside the journal cannot be opened."""
        self._connection = connection
        self._lock = os.open(journal.with_name(FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        connection.execute("PRAGMA busy_timeout = 0")

    def close(self) -> None:
        os.close(self._lock)

    def begin(self, deadline: float) -> None:
        """Begin a transaction that writes, once it is this connection's turn; by the deadline, a time of `time.monotonic`.

        Raises sqlite3.OperationalError, SQLITE_BUSY, if others wrote all the time.
        """
        with self._next_in_line(deadline):
            while not self._began(deadline):
                time.sleep(_POLL_S)

    def _began(self, deadline: float) -> bool:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            return False
        return True

    @contextmanager
    def _next_in_line(self, deadline: float) -> Iterator[None]:
        """Wait for the lock, until the deadline: a process that does not get it in time tries to write once anyway."""
        try:
            while not locked(self._lock) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            yield
        finally:
            unlock(self._lock)
