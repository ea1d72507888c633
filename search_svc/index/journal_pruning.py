"""Pruning: entries that no version needs any more are taken out of the journal."""

import math
import sqlite3
from dataclasses import replace
from pathlib import Path

from search_svc.index import journal_file, journal_format
from search_svc.index.journal import Journal
from search_svc.index.journal_errors import translate_sqlite_errors
from search_svc.index.journal_transactions import LONGEST_WAIT_S, JournalTransactions
from svckit.artifact import ArtifactError

_AT_ONCE = 2000
"""Entries that go in one transaction, which others wait for."""


def prune(index_dir: Path, upto: int) -> None:
    """Take out the entries up to a sequence number, for good, and give their room back to the disk.

    The caller knows that no version needs them which is there, or will be. Raises ArtifactError if the journal cannot be written.
    """
    path = index_dir / journal_file.FILE
    if not takes_out(index_dir, upto):
        return
    try:
        with translate_sqlite_errors(path), JournalTransactions(path, "", 0, 0) as transactions:
            _take_out(transactions, upto)
            _give_room_back(transactions.connection)
    except OSError as error:
        raise ArtifactError(path, f"cannot be pruned: {error}") from error


def takes_out(index_dir: Path, upto: int) -> bool:
    """Return whether `prune` has anything to do."""
    with Journal.open(index_dir) as journal:
        return journal.model is not None and (journal.pruned < upto or journal.holds(upto))


def _take_out(transactions: JournalTransactions, upto: int) -> None:
    connection = transactions.connection
    with transactions.transaction() as snapshot:
        meta = replace(snapshot.meta, pruned=max(snapshot.meta.pruned, upto))
        journal_format.write_meta(connection, meta)
    some = f"SELECT sequence FROM entries WHERE sequence <= ? ORDER BY sequence LIMIT {_AT_ONCE}"
    gone = _AT_ONCE
    while gone == _AT_ONCE:
        with transactions.transaction():
            gone = connection.execute(f"DELETE FROM entries WHERE sequence IN ({some})", (upto,)).rowcount


def _give_room_back(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {1e3 * LONGEST_WAIT_S:.0f}")
    before, free = math.inf, _free_pages(connection)
    while 0 < free < before:  # a file that was not made by this code may keep them for ever
        # As a script: executed, it would end after a page, for its rows have no columns.
        connection.executescript(f"PRAGMA incremental_vacuum({_AT_ONCE})")
        before, free = free, _free_pages(connection)


def _free_pages(connection: sqlite3.Connection) -> int:
    ((free,),) = connection.execute("PRAGMA freelist_count")
    return int(free)
