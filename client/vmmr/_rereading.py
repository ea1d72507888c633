"""What files hold, read anew when they change: certificates and keys are replaced while programs run."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Reread(Generic[T]):
    """The value that some files hold together. Files that can't be read, or do not go together, leave the last value in place."""

    def __init__(
        self, files: Iterable[str | os.PathLike[str]], read: Callable[[], T], on_problem: Callable[[Exception], object]
    ) -> None:
        """Read the files. Raise what `read` raises; later it is given to `on_problem` instead, once for each state of the files."""
        self._files = [Path(file) for file in files]
        self._read = read
        self._on_problem = on_problem
        self._lock = Lock()
        self._seen = self._state()
        self._value = read()
        self.stale = False
        """Whether the files, as they are now, can't be used, and the value is that of before."""

    def latest(self) -> T:
        """Return the value of the files as they are now, or else that of when they could last be read."""
        with self._lock:
            if (now := self._state()) != self._seen:
                self._read_anew(now)
            return self._value

    def _read_anew(self, now: object) -> None:
        try:
            value = self._read()
        except Exception as error:  # noqa: BLE001 (whatever is wrong with the files, the last value is still good)
            self._seen, self.stale = now, True
            self._on_problem(error)
            return
        # What is being written while it is read is looked at again the next time.
        if self._state() == now:
            self._seen, self.stale, self._value = now, False, value

    def _state(self) -> object:
        """Return what differs once a file was written, replaced or removed."""
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> object:
    try:
        found = file.stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
