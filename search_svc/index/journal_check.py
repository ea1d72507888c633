"""Reading the journal through to a known end: an end that comes before it is an error, never "nothing new"."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from search_svc.index import journal_file, journal_mark
from search_svc.index.journal import Entry, Journal
from search_svc.index.journal_errors import translate_sqlite_errors
from search_svc.index.journal_snapshot import Snapshot
from svckit.artifact import ArtifactError

_READ_AT_ONCE = 10_000


def read_through(journal: Journal, after: int, upto: int) -> Iterator[list[Entry]]:
    """Yield the entries after a sequence number in order, some at a time, until `upto` is among them; others may follow it.

    Raises ArtifactError if one is damaged, or if they end before.
    """
    while after < upto:
        some = journal.read(after, _READ_AT_ONCE)
        if not some:
            raise ArtifactError(journal.path, f"ends with entry {after}, and {upto} were written")
        yield some
        after = some[-1].sequence


def reaches(journal: Path, sequence: int) -> bool:
    """Return whether a journal that can be read ends no earlier than with that entry; of one that is not there its mark tells."""
    connection = journal_file.connect_to_read(journal)
    if connection is None:
        return (journal_mark.read(journal) or journal_mark.NOTHING).sequence >= sequence
    with translate_sqlite_errors(journal), closing(connection):
        return Snapshot.of(connection, journal).last >= sequence


def verify(index_dir: Path) -> int:
    """Read every entry of a journal, and return the sequence number of the last that there ever was; 0 if there is no journal.

    Raises ArtifactError, naming the file and the reason, if one is not as it was written, if some are missing, or if SQLite finds
    a fault in the file.
    """
    with Journal.open(index_dir) as journal:
        journal.verify()
        last = journal.sequence()
        for _ in read_through(journal, journal.pruned, last):
            pass
    return last
