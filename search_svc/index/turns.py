"""Turns at writing: of processes that write at once, each comes to it.

SQLite's waiting writers try again at intervals, and one that writes without a pause always comes before them: of two, one
was seen to get 50 times the share of the other. Here, who waits next in line holds a lock that everybody takes before the
database's own; so whoever has just written stands in line behind it.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search_svc.index.journal_file import error_code
from search_svc.index.locks import locked

FILE = "journal.lock"
_POLL_S = 0.0002


def begin(connection: sqlite3.Connection, lock: Path, deadline: float) -> None:
    """Begins a transaction that writes, once it is this caller's turn; by the deadline, a time of `time.monotonic`.

    Raises sqlite3.OperationalError, SQLITE_BUSY, if others wrote all the time.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    with _next_in_line(lock, deadline):
        while not _began(connection, deadline):
            time.sleep(_POLL_S)


def _began(connection: sqlite3.Connection, deadline: float) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
            raise
        return False
    return True


@contextmanager
def _next_in_line(lock: Path, deadline: float) -> Iterator[None]:
    """Who does not come to be it in time goes on all the same, and has one try."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while not locked(descriptor) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)
