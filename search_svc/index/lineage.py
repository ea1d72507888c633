"""Which index this is, and which of its histories: the file ID, made by its first backup.

Every backup names it, so a folder of backups is of one index, wherever that is moved to. Of an index that is restored of it, which may go on
from an earlier entry of the journal, the same numbers mean other entries from there on: it has a history of its own.
"""

import errno
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from svckit.artifact import ArtifactError, atomic_write, read_object, sealed

_FILE = "ID"
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_REMOVE_IT = (
    "remove it, and name a new folder for the backups, or copy the file from an index that was restored of them"
)


@dataclass(frozen=True)
class Lineage:
    index: str = ""
    """Empty if it is not known."""
    history: str = ""
    shared: Mapping[str, int] = field(default_factory=dict)
    """Other histories of the index, and the last journal entry that this one shares with each."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Lineage":
        """Return what `asdict` made these fields of. Raise TypeError or KeyError if it did not."""
        return cls(fields["index"], fields["history"], {**fields["shared"]})

    def has(self, history: str, sequence: int) -> bool:
        """Return whether a history's entries up to this number are also this one's."""
        return history == self.history or sequence <= self.shared.get(history, -1)

    def branch(self, sequence: int) -> "Lineage":
        """Return a new history of the index, which shares what this one has up to that entry."""
        shared = {history: min(last, sequence) for history, last in self.shared.items()}
        return Lineage(self.index, _made_up(), {**shared, self.history: sequence})


def found_or_made(index_dir: Path) -> Lineage:
    """Return an index's lineage; one that is not known if it has none and its folder cannot be written. Call it inside the only backup's lock.

    Raise ArtifactError if it is damaged.
    """
    if (found := find(index_dir)).index:
        return found
    made = Lineage(_made_up(), _made_up())
    try:
        write(index_dir, made)
    except OSError as error:
        if error.errno in _UNWRITABLE:
            return Lineage()
        raise
    return made


def find(index_dir: Path) -> Lineage:
    """Return an index's lineage; one that is not known if it has none. Raise ArtifactError if it is damaged."""
    return _read(index_dir / _FILE) if (index_dir / _FILE).exists() else Lineage()


def write(index_dir: Path, lineage: Lineage) -> None:
    atomic_write(index_dir / _FILE, f"{json.dumps(sealed(asdict(lineage)))}\n".encode())


def _read(path: Path) -> Lineage:
    try:
        fields = read_object(path)
        found = Lineage.of(fields)
    except (ArtifactError, KeyError, TypeError) as error:
        raise ArtifactError(path, "is not as it was written: it lacks what it must say", _REMOVE_IT) from error
    if sealed(fields) != fields:
        raise ArtifactError(path, "is not as it was written: its seal does not fit", _REMOVE_IT)
    return found


def _made_up() -> str:
    return secrets.token_hex(16)
