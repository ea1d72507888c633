"""`serve --accept-loss`: going on with a journal that ends before what was acknowledged."""

import shutil
import time
from contextlib import closing
from pathlib import Path

from search_svc.index import journal_file, journal_format, journal_mark
from search_svc.index.journal_errors import translate_sqlite_errors
from search_svc.index.journal_snapshot import ALL, Snapshot
from search_svc.index.turns import Turns

_PATIENCE_S = 10.0


def accept(index_dir: Path) -> int:
    """Fill up what is missing at the end of the journal with entries that change nothing; return how many are lost now.

    A copy of SQLite's log is kept first, for it may hold what is lost. Raises ArtifactError if the journal is damaged in another way:
    that takes a repair.
    """
    path = index_dir / journal_file.FILE
    mark = journal_mark.read(path)
    if mark is None or not path.exists() or _last(path) >= mark.sequence:
        return 0
    _keep_log(path)
    with translate_sqlite_errors(path), closing(journal_file.connect_to_mend(path)) as connection:
        with closing(Turns(connection, path)) as turns:
            turns.begin(time.monotonic() + _PATIENCE_S)
        lost = _fill_up(Snapshot.of(connection, path), mark.sequence)
        connection.execute("COMMIT")
    return lost


def _last(path: Path) -> int:
    """A connection that only reads leaves the log as it is."""
    connection = journal_file.connect_to_read(path)
    if connection is None:
        return 0
    with translate_sqlite_errors(path), closing(connection):
        return Snapshot.of(connection, path).last


def _keep_log(path: Path) -> None:
    log = journal_file.files(path)[1]
    if log.exists():
        shutil.copyfile(log, log.with_name(f"{log.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}"))


def _fill_up(snapshot: Snapshot, upto: int) -> int:
    last = snapshot.last
    snapshot.verify()
    snapshot.whole_writes(snapshot.meta.pruned, ALL)
    rows = [journal_format.lost_row(number) for number in range(last + 1, upto + 1)]
    snapshot.connection.executemany(journal_format.INSERT, rows)
    return len(rows)
