"""Leases on index versions: a process that serves a version holds a shared lock on its directory until it has let go of it.

So a process that removes old versions can tell which are free. The kernel ends the locks of a process that ends,
however it ends. A lock is of the directory itself: nothing is written, so an index on a read-only disk can be served.

Beside it, the process marks the directory as used. Whether a version is in use can be asked by the mark: a lock taken just to
ask would be in the way of a server that starts, and of others who ask.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from search_svc.index.index_dir import current, version_path, way_out
from search_svc.index.locks import locked, locked_with_others, mark_used, used
from svckit.artifact import ArtifactError

_TRIES = 10


class VersionLease:
    """A version that stays where it is until `release`, or until the process ends."""

    def __init__(self, path: Path) -> None:
        """Raises ArtifactError if it is not there, or is just being removed."""
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise ArtifactError(path, "there is no such index version", _way_out(path)) from error
        except OSError as error:
            raise ArtifactError(path, error.strerror or str(error)) from error
        if not locked_with_others(self._descriptor):
            self.release()
            raise ArtifactError(path, "is being removed")
        mark_used(self._descriptor)
        if not _same(self._descriptor, path):
            self.release()
            raise ArtifactError(path, "was removed")

    @classmethod
    def current(cls, index_dir: Path) -> Self:
        """Take a lease on the current version; try again if another becomes current, and this one is removed, meanwhile."""
        for attempt in range(_TRIES):
            version = current(index_dir)
            try:
                return cls(version_path(index_dir, version))
            except ArtifactError:
                if attempt == _TRIES - 1 or current(index_dir) == version:
                    raise
        raise AssertionError

    def release(self) -> None:
        os.close(self._descriptor)


def in_use(path: Path) -> bool:
    """Return whether some process has a lease on the version. Raise FileNotFoundError if it is not there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return used(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_version(path: Path) -> Iterator[bool]:
    """Yield whether no process has a lease on the version; if so, none can get one within the block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield locked(descriptor)
    finally:
        os.close(descriptor)


def _way_out(version: Path) -> str:
    return way_out(version.parent.parent, version.name)


def _same(descriptor: int, path: Path) -> bool:
    """Return whether the directory is still under its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
