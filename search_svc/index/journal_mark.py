"""`journal.mark`: how much of the journal was acknowledged, in a file of its own.

SQLite ends the recovery of its write-ahead log at the first frame that is damaged, and says nothing of what came after. So the
number of the last entry that a caller was told of is kept here as well, on the disk before the caller is told; a journal that ends below
it has lost something. The mark is never ahead of what is committed.

Two slots, each in a block of its own, are written in turn: a crash while one is written leaves the other, which is one commit behind.
Each holds, in little-endian order, a magic number, a format, two sequence numbers and the CRC-32 of all that.
"""

import fcntl
import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from svckit.artifact import ArtifactError, flush, flush_one

NAME = "journal.mark"
_SLOT = 4096
"""Bytes: a disk or a file system may write a block of this size at once, and tear all that is in it."""
_FIELDS = struct.Struct("<8sIQQ")
_CRC = struct.Struct("<I")
_MAGIC = b"vmmrmark"
_FORMAT = 1


@dataclass(frozen=True, order=True)
class Mark:
    sequence: int
    """Of the last entry that was acknowledged."""
    pruned: int
    """Entries up to this one may be gone, for no version needs them."""

    @property
    def needs_journal(self) -> bool:
        """Whether entries were acknowledged that only a journal can hold."""
        return self.sequence > self.pruned

    def joined(self, other: "Mark") -> "Mark":
        return Mark(max(self.sequence, other.sequence), max(self.pruned, other.pruned))


NOTHING = Mark(0, 0)


class LaterFormatError(ArtifactError):
    """The mark was written by a later vmmr-search: it is not damaged, and must not be replaced."""


def path_of(journal: Path) -> Path:
    return journal.with_name(NAME)


def read(journal: Path) -> Mark | None:
    """Return the mark beside a journal, or None if there is no such file. Raise ArtifactError if it is damaged or of a later format."""
    path = path_of(journal)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(path, error.strerror or str(error)) from error
    slots = _slots(content)
    if not slots:
        raise _unreadable(journal, content)
    return max(slots.values())


def refuse_later_format(journal: Path) -> None:
    """Raise LaterFormatError if the mark beside a journal was written by a later vmmr-search."""
    try:
        read(journal)
    except LaterFormatError:
        raise
    except ArtifactError:
        return


def create(journal: Path, mark: Mark) -> None:
    """Put a mark beside a journal, on the disk; one that is there already stays."""
    path = path_of(journal)
    draft = path.with_name(f".{NAME}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(2 * _packed(mark))
        flush(draft)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    flush_one(path.parent)


def replace(journal: Path, mark: Mark) -> None:
    """Put a mark beside a journal in place of whatever is there."""
    path = path_of(journal)
    with suppress(FileNotFoundError):
        path.unlink()
    create(journal, mark)


def advance(journal: Path, mark: Mark) -> None:
    """Raise the mark beside a journal to at least this, as `MarkFile.advance` does."""
    with MarkFile(journal) as file:
        file.advance(mark)


class MarkFile:
    """The mark of a journal, kept open by one that writes. Of several processes, each opens its own; for one thread at a time."""

    def __init__(self, journal: Path) -> None:
        """Raises OSError if there is no such file, or it cannot be written."""
        self._journal = journal
        self._descriptor = os.open(path_of(journal), os.O_RDWR | os.O_CLOEXEC)
        self._content, self._slots = b"", dict[int, Mark]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def read(self) -> Mark:
        """Return the mark as it is now. Raise ArtifactError if it is damaged, or if the file was removed."""
        if not os.fstat(self._descriptor).st_nlink:
            raise missing(self._journal)
        return max(self._read().values())

    def advance(self, mark: Mark) -> None:
        """Raise the mark to at least this; it is on the disk then. Several processes may do so at once.

        Raises OSError, or ArtifactError if the mark is damaged.
        """
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            # Also if it is high enough: who raised it may have been killed, or told of a failure, before it was on the disk.
            self._write(max(self._read().values()).joined(mark))
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _write(self, mark: Mark) -> None:
        older = min((0, 1), key=lambda slot: self._slots.get(slot, NOTHING))
        packed, at = _packed(mark), older * _SLOT
        os.pwrite(self._descriptor, packed, at)
        os.fdatasync(self._descriptor)
        self._content = self._content[:at] + packed + self._content[at + _SLOT :]
        self._slots = {**self._slots, older: mark}

    def _read(self) -> dict[int, Mark]:
        """Return the slots that are as they were written; what was read before is not unpacked again."""
        content = os.pread(self._descriptor, 2 * _SLOT, 0)
        if content != self._content:
            self._content, self._slots = content, _slots(content)
        if not self._slots:
            raise _unreadable(self._journal, content)
        return self._slots


def _unreadable(journal: Path, content: bytes) -> ArtifactError:
    later = [form for form, _ in _whole(content).values()]
    if later:
        text = f"has format {max(later)}; this vmmr-search reads {_FORMAT}: use the one that wrote it"
        return LaterFormatError(path_of(journal), text)
    text = "is damaged: it says up to which entry the journal was acknowledged"
    return ArtifactError(path_of(journal), f"{text}. `vmmr-search repair {journal.parent}` makes it anew")


def missing(journal: Path) -> ArtifactError:
    text = "is missing: it says up to which entry the journal beside it was acknowledged"
    return ArtifactError(path_of(journal), f"{text}. `vmmr-search repair {journal.parent}` makes it anew")


def _packed(mark: Mark) -> bytes:
    fields = _FIELDS.pack(_MAGIC, _FORMAT, mark.sequence, mark.pruned)
    return (fields + _CRC.pack(zlib.crc32(fields))).ljust(_SLOT, b"\0")


def _slots(content: bytes) -> dict[int, Mark]:
    """Return the marks of the slots that are as they were written, by place."""
    return {slot: mark for slot, (form, mark) in _whole(content).items() if form == _FORMAT}


def _whole(content: bytes) -> dict[int, tuple[int, Mark]]:
    """Return format and mark of the slots that are as they were written, by place; of a later format the mark may be none."""
    found = {}
    for slot in range(2):
        part = content[slot * _SLOT : (slot + 1) * _SLOT]
        fields, rest = part[: _FIELDS.size], part[_FIELDS.size :]
        if len(part) == _SLOT and rest == _CRC.pack(zlib.crc32(fields)).ljust(len(rest), b"\0"):
            magic, form, sequence, pruned = _FIELDS.unpack(fields)
            if magic == _MAGIC:
                found[slot] = (form, Mark(sequence, pruned))
    return found
