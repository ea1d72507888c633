"""The audit log: a file with a JSON line for every write to the gallery and every call that was refused to its caller.

Several processes may append to one file: a line is one write at its end, and whoever finds it too large moves it aside under a lock.
A file that is full, and cannot be moved aside, is written on. A line that cannot be written is lost; calls go on.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from svckit.config import ConfigError

KEPT = 9
"""How many full files are kept beside the one that is written: FILE.1, the newest of them, to FILE.9."""
_MODE = 0o600
_MOST_WAITING = 10_000
"""Lines that a disk which does not answer may keep waiting, in memory; more are lost."""

_log = logging.getLogger(__name__)


class AuditLog:
    """Appends lines to the file, in a thread of its own: the disk may be slow."""

    def __init__(self, path: Path, max_bytes: int, on_lost: Callable[[], None]) -> None:
        """The file is moved aside before it has more than `max_bytes`. `on_lost` is called for every line that was not written.

        Raise ConfigError if the file cannot be opened.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._on_lost = on_lost
        self._file: int | None = None
        self._torn = False
        self._trouble = ""
        self._stuck = ""
        self._lines: SimpleQueue[tuple[bytes, Callable[[], object]] | None] = SimpleQueue()
        try:
            self._reopen()
        except OSError as error:
            raise ConfigError(f"--audit-log {path}: {error.strerror}") from error
        self._thread = Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def stuck(self) -> bool:
        """Whether the file is larger than it should be, or not under its name, and goes on for want of another."""
        return bool(self._stuck)

    def append(self, fields: Mapping[str, Any], then: Callable[[], object] = lambda: None) -> None:
        """Append a line with the time and these fields. `then` is called, by any thread, once it is in the file or lost."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(), **fields}).encode() + b"\n"
        if self._lines.qsize() < _MOST_WAITING:
            self._lines.put((line, then))
        else:
            self._lost("the disk does not take them as fast as they come")
            then()

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._lines.put(None)
        self._thread.join()
        if self._file is not None:
            os.close(self._file)

    def _run(self) -> None:
        while (waiting := self._lines.get()) is not None:
            line, then = waiting
            self._append(line)
            then()

    def _append(self, line: bytes) -> None:
        try:
            self._write(line)
        except OSError as error:
            self._lost(error.strerror or str(error))
        else:
            if self._trouble:
                _log.info("the audit log is written again", extra={"file": str(self._path)})
            self._trouble = ""

    def _lost(self, reason: str) -> None:
        self._on_lost()
        if reason != self._trouble:
            _log.error("lines of the audit log are lost, calls go on", extra={"file": str(self._path), "error": reason})
        self._trouble = reason

    def _write(self, line: bytes) -> None:
        file = self._current(len(line))
        # What a full disk has left of a line before must not be the beginning of this one.
        line = b"\n" + line if self._torn else line
        with _locked(file, fcntl.LOCK_SH):
            written = os.write(file, line)
        self._torn = 0 < written < len(line) or (self._torn and not written)
        if written < len(line):
            raise OSError(0, f"only {written} of the {len(line)} bytes of a line were written")

    def _current(self, more: int) -> int:
        """Return the file to write so many more bytes to: the one that fits, or the one there is while no other can be had."""
        try:
            file, reason = self._fitting(more), ""
        except OSError as error:
            # What is written to a file that was deleted is lost.
            if self._file is None or not os.fstat(self._file).st_nlink:
                raise
            file, reason = self._file, error.strerror or str(error)
        if reason and reason != self._stuck:
            about = {"file": str(self._path), "error": reason}
            _log.error("the audit log cannot be moved aside or made anew, it goes on in the file it has", extra=about)
        elif self._stuck and not reason:
            _log.info("the audit log is moved aside again", extra={"file": str(self._path)})
        self._stuck = reason
        return file

    def _fitting(self, more: int) -> int:
        """Return the file under the name, another one if it is full or if somebody has moved it."""
        file = self._file
        if file is None or not _is_at(self._path, file):
            file = self._reopen()
        if os.fstat(file).st_size + more <= self._max_bytes:
            return file
        self._move_aside(file)
        return self._reopen()

    def _move_aside(self, file: int) -> None:
        """Make the file FILE.1, unless another process has done so meanwhile."""
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.fstat(file).st_size and _is_at(self._path, file):
                # Up to the first that is free: what a try has moved that failed half way is not moved again.
                free = next((number for number in range(1, KEPT) if not self._numbered(number).exists()), KEPT)
                for number in range(free, 0, -1):
                    self._numbered(number - 1).replace(self._numbered(number))
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _reopen(self) -> int:
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        if self._file is not None:
            os.close(self._file)
        self._file = opened
        self._torn = _ends_within_a_line(opened)
        if self._torn:  # or another process is about to write the rest of it
            with _locked(opened, fcntl.LOCK_EX):
                self._torn = _ends_within_a_line(opened)
        return opened


def _ends_within_a_line(file: int) -> bool:
    """Return whether the file ends within a line, as a full disk leaves it."""
    size = os.fstat(file).st_size
    if not size:
        return False
    with Path(f"/proc/self/fd/{file}").open("rb") as reading:  # that file, whichever has its name by now
        return os.pread(reading.fileno(), 1, size - 1) != b"\n"


@contextmanager
def _locked(file: int, how: int) -> Iterator[None]:
    """Hold a lock on the file, where its file system has any."""
    with suppress(OSError):
        fcntl.flock(file, how)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
