"""Which file has a name: one that was moved away or replaced is another, and who has it open goes on with it."""

import os
import weakref
from contextlib import suppress
from pathlib import Path

FileId = tuple[int, int]
"""Of a file or directory, as long as anybody has it open: its device, and its number there."""


def file_id(path: str | Path) -> FileId | None:
    """Return which file or directory has a name now; None if there is none."""
    with suppress(FileNotFoundError):
        there = os.stat(path)  # noqa: PTH116 (before every commit; a Path takes three times as long)
        return there.st_dev, there.st_ino
    return None


class HeldDirectory:
    """A directory, held open so that no other gets its id, until `release`, or until this is garbage."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if there is none, or it cannot be opened."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._path, self._descriptor = path, descriptor
        self.release = weakref.finalize(self, os.close, descriptor)

    def fileno(self) -> int:
        """Return its descriptor, for a lock on it."""
        return self._descriptor

    def is_in_place(self) -> bool:
        """Return whether its name is still its own."""
        held = os.fstat(self._descriptor)
        return file_id(self._path) == (held.st_dev, held.st_ino)
