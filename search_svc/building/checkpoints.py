"""Checkpoints: what a process that is killed leaves to the next one, so that it can go on from there.

A file is recorded only once it is on the disk, so no record describes anything that might be lost. A file that is not as it
was recorded, or whose record is damaged, is made again.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from svckit import artifact
from svckit.cli import CommandError

_INTERVAL_S = 60.0
_TIME_SHARE = 0.05
_RUN = "run"


@dataclass(frozen=True)
class Checkpoint:
    """A file as it was recorded."""

    path: Path
    state: Mapping[str, float]
    """The numbers that were recorded with it."""


@dataclass(frozen=True)
class Checkpoints:
    """The records of a directory, by name. Each name belongs to one process at a time."""

    directory: Path
    run: str = ""
    """The name of the run that these records are of, if runs on several machines may overlap: see `begin_run`."""

    def begin_run(self) -> "Checkpoints":
        """Return the same records for a new run: what a process of an earlier run does from now on is refused.

        A process on another machine may not know that its run has ended, and that another one, maybe of another job, goes on here.
        """
        run = secrets.token_hex(8)
        artifact.atomic_write(self.directory / _RUN, run.encode())
        return replace(self, run=run)

    def check_run(self) -> None:
        """Raise CommandError if another run has begun."""
        if self.run and (self.directory / _RUN).read_text() != self.run:
            raise CommandError(f"{self.directory}: another run goes on here")

    def keep(self, name: str, path: Path, **state: float) -> None:
        """Flush the file to the disk, and record it in place of what was recorded under this name."""
        artifact.flush(path)
        self.check_run()
        file = os.path.relpath(path, self.directory)
        record = {"file": file, "bytes": path.stat().st_size, "content": artifact.sha256(path), "state": state}
        artifact.atomic_write(self._record(name), f"{json.dumps(artifact.sealed(record))}\n".encode())

    def find(self, name: str) -> Checkpoint | None:
        """Return what was recorded under this name, after cutting off what was written to the file since.

        None if nothing was recorded, or if the file or the record is damaged, which is said on stderr.
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
        """Return whether anything was recorded under this name, damaged or not."""
        return self._record(name).exists()

    def state(self, name: str) -> Mapping[str, float]:
        """Return the numbers that were recorded, whether or not the file is damaged; empty if nothing was recorded."""
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
    """Cut the file to that size, and return whether it is then as it was recorded."""
    if not path.is_file() or path.stat().st_size < size:
        return False
    if path.stat().st_size > size:
        os.truncate(path, size)
    return artifact.sha256(path) == sha256


class Pace:
    """Decides when to make a checkpoint: every minute, or less often if checkpoints would take more than 5 % of the time."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _INTERVAL_S

    def maybe(self, keep: Callable[[], None]) -> None:
        """Call `keep`, which makes a checkpoint, if it is time."""
        if (started := time.monotonic()) < self._due:
            return
        keep()
        ended = time.monotonic()
        self._due = ended + max(_INTERVAL_S, (ended - started) / _TIME_SHARE)
