"""What a process that is killed leaves to the next: files that are known to be on the disk, and what is in them.

A file is recorded once it is on the disk, so a record never tells of what might be lost. A file that is not as recorded, or whose
record is not as it was written, is made again.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svckit import artifact

_INTERVAL_S = 60.0
_TIME_SHARE = 0.05


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    state: Mapping[str, float]
    """What was recorded with it."""


@dataclass(frozen=True)
class Checkpoints:
    """The records of a directory, by name. Each name is one process' affair."""

    directory: Path

    def keep(self, name: str, path: Path, **state: float) -> None:
        """Puts the file on the disk, and records it in place of what was recorded under this name."""
        artifact.flush(path)
        file = os.path.relpath(path, self.directory)
        record = {"file": file, "bytes": path.stat().st_size, "content": artifact.sha256(path), "state": state}
        artifact.atomic_write(self._record(name), f"{json.dumps(artifact.sealed(record))}\n".encode())

    def find(self, name: str) -> Checkpoint | None:
        """What was kept under this name; None if nothing was, or if it is damaged, which is said on stderr.

        What was written to the file since is cut off.
        """
        record = self._read(name)
        if record is None:
            return None
        path = Path(os.path.normpath(self.directory / record["file"]))
        if not _restored(path, record["bytes"], record["content"]):
            print(f"warning: {path} is damaged, and is made again", file=sys.stderr)
            return None
        return Checkpoint(path, record["state"])

    def has(self, name: str) -> bool:
        """Whether anything was kept under this name, damaged or not."""
        return self._record(name).exists()

    def state(self, name: str) -> Mapping[str, float]:
        """What was recorded, whether or not the file is damaged; empty if nothing was."""
        record = self._read(name)
        return record["state"] if record else {}

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._record(name)
        if not path.exists():
            return None
        try:
            record = artifact.read_object(path)
        except artifact.ArtifactError:
            record = {}
        if record != artifact.sealed(record):
            print(f"warning: {path} is damaged, and is made again", file=sys.stderr)
            return None
        return record

    def _record(self, name: str) -> Path:
        return self.directory / f"{name}.json"


def _restored(path: Path, size: int, sha256: str) -> bool:
    """Whether the file is as it was when it had that size; it has it again then."""
    if not path.is_file() or path.stat().st_size < size:
        return False
    if path.stat().st_size > size:
        os.truncate(path, size)
    return artifact.sha256(path) == sha256


class Pace:
    """When it is time for a checkpoint: after a minute, or later if that would take more than a twentieth of the time."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _INTERVAL_S

    def maybe(self, keep: Callable[[], None]) -> None:
        """Keeps, if it is time."""
        if (started := time.monotonic()) < self._due:
            return
        keep()
        ended = time.monotonic()
        self._due = ended + max(_INTERVAL_S, (ended - started) / _TIME_SHARE)
