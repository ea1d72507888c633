"""`serve --accept-loss`: going on with a journal that ends before what was acknowledged."""

import shutil
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from search_svc.index import journal_absence, journal_file, journal_format, journal_mark
from search_svc.index.index_dir import current
from search_svc.index.journal_errors import translate_sqlite_errors
from search_svc.index.journal_mark import Mark
from search_svc.index.journal_snapshot import ALL, Snapshot
from search_svc.index.turns import Turns
from search_svc.index.version import stated
from svckit.artifact import ArtifactError, flush_one

_PATIENCE_S = 10.0


def accept(index_dir: Path) -> int:
    """Fill up what is missing at the end of the journal with entries that change nothing; return how many are lost now.

    A copy of SQLite's log is kept first, for it may hold what is lost. Raises ArtifactError if the journal is damaged in another way:
    that takes a repair.
    """
    path = index_dir / journal_file.FILE
    mark = journal_mark.read(path)
    if mark is None or not path.exists() or _is_whole(path, mark):
        return 0
    with translate_sqlite_errors(path), closing(journal_file.connect_to_mend(path)) as connection:
        with closing(Turns(connection, path)) as turns:
            turns.begin(time.monotonic() + _PATIENCE_S)
        snapshot = Snapshot.of(connection, path)
        if snapshot.last >= mark.sequence and snapshot.meta.pruned >= mark.pruned:
            return 0  # another process has come first
        _keep_log(path)
        lost = _fill_up(snapshot, mark)
        # Its last entry is another from here on.
        journal_mark.replace(path, replace(mark, checksum=None))
        connection.execute("COMMIT")
    return lost


def accept_gone(index_dir: Path) -> int | None:
    """Go on without a journal that is not there although there was one; return the last entry that versions hold, None if none was lost.

    The next entries are numbered from there on. Raises ArtifactError if the current version holds less: that takes a repair.
    """
    path = index_dir / journal_file.FILE
    mark = journal_mark.read(path)
    if journal_file.has_content(path) or (mark and mark.needs_journal):
        return None
    try:
        journal_absence.refuse(path, mark)
    except ArtifactError as error:
        last = journal_absence.held(index_dir)
        if stated(index_dir, current(index_dir)).journal_sequence < last:
            remedy = f"the current version holds less: `vmmr-search repair {index_dir}` says how much, and another version may be served then"
            raise ArtifactError(path, error.reason, remedy) from error
        journal_mark.create(path, Mark(last, last))
        journal_mark.advance(path, Mark(last, last))
        return last
    return None


def _is_whole(path: Path, mark: Mark) -> bool:
    """Return whether the journal has all that was acknowledged. A connection that only reads leaves the log as it is."""
    connection = journal_file.connect_to_read(path)
    if connection is None:
        return not mark.sequence
    with translate_sqlite_errors(path), closing(connection):
        snapshot = Snapshot.of(connection, path)
        return snapshot.last >= mark.sequence and snapshot.meta.pruned >= mark.pruned


def _keep_log(path: Path) -> None:
    """Copy the log, on the disk, under a name that no copy has; within a transaction, so that nobody else writes to it."""
    log = journal_file.files(path)[1]
    if log.exists():
        kept = journal_file.kept(log)
        with log.open("rb") as source, kept.open("xb") as target:
            shutil.copyfileobj(source, target)
        flush_one(kept)
        flush_one(kept.parent)


def _fill_up(snapshot: Snapshot, mark: Mark) -> int:
    snapshot.verify()
    snapshot.whole_writes(snapshot.meta.pruned, ALL)
    meta = replace(snapshot.meta, pruned=max(snapshot.meta.pruned, mark.pruned))
    journal_format.write_meta(snapshot.connection, meta)
    last = max(snapshot.last, meta.pruned)
    rows = [journal_format.lost_row(number) for number in range(last + 1, mark.sequence + 1)]
    snapshot.connection.executemany(journal_format.INSERT, rows)
    return len(rows)
