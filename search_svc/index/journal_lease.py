"""Leases on journals: a process that has a journal open holds a shared lock on the index's directory until it closes it.

So a repair, which puts another file in the journal's place, can tell whether it is alone with it, whoever the others are: the kernel
knows of the locks of other users and containers, too, whose processes cannot be listed. It ends the locks of a process that ends.
The lock is not of the journal itself: a process that opens and closes that by other means than SQLite ends SQLite's locks on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search_svc.index.file_ids import HeldDirectory
from search_svc.index.locks import locked, locked_with_others
from svckit.artifact import ArtifactError


class JournalLease:
    """A journal that nobody repairs until `release`, or until this is garbage, or the process ends."""

    def __init__(self, path: Path) -> None:
        """Raises ArtifactError if it is being repaired, or if its directory cannot be opened."""
        try:
            self._directory = HeldDirectory(path.parent)
        except OSError as error:
            raise ArtifactError(path.parent, error.strerror or str(error)) from error
        if not locked_with_others(self._directory.fileno()):
            self.release()
            raise ArtifactError(path, "is being repaired: wait until `vmmr-search repair` has ended")

    def release(self) -> None:
        self._directory.release()


@contextmanager
def exclusive_journal(index_dir: Path) -> Iterator[bool]:
    """Yield whether no process has the journal open; if so, none can open it within the block."""
    directory = HeldDirectory(index_dir)
    try:
        yield locked(directory.fileno())
    finally:
        directory.release()
