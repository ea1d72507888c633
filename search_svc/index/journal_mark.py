"""`journal.mark`: how much of the journal was acknowledged, in a file of its own.

SQLite ends the recovery of its write-ahead log at the first frame that is damaged, and says nothing of what came after. So the
number of the last entry that a caller was told of is kept here as well, on the disk before the caller is told; a journal that ends below
it has lost something. The mark is never ahead of what is committed.

Two slots, each in a block of its own, are written in turn: a crash while one is written leaves the other, which is one commit behind.
Each holds, in little-endian order, a magic number, a format, two sequence numbers and the CRC-32 of all that.

Two more blocks tell which entry that was, by its checksum: a log, or a whole journal, of another index has entries of the same numbers.
Each belongs to the slot before, and counts if it is of the same number; releases that do not know of them leave them as they are.
"""

import fcntl
import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from search_svc.index.file_ids import file_id
from svckit.artifact import ArtifactError, flush, flush_one

NAME = "journal.mark"
_SLOT = 4096
"""Bytes: a disk or a file system may write a block of this size at once, and tear all that is in it."""
_SIZE = 4 * _SLOT
_FIELDS = struct.Struct("<8sIQQ")
_ENTRY = struct.Struct("<8sQQ")
_CRC = struct.Struct("<I")
_MAGIC = b"vmmrmark"
_ENTRY_MAGIC = b"vmmrlast"
_FORMAT = 1


@dataclass(frozen=True, order=True)
class Mark:
    sequence: int
    """Of the last entry that was acknowledged."""
    pruned: int
    """Entries up to this one may be gone, for no version needs them."""
    checksum: int | None = field(default=None, compare=False)
    """Of the entry `sequence`, as it is in its row; None if it is not known."""

    @property
    def needs_journal(self) -> bool:
        """Whether entries were acknowledged that only a journal can hold."""
        return self.sequence > self.pruned

    def joined(self, other: "Mark") -> "Mark":
        """Return a mark of all that either says; of the same last entry, what `other` knows."""
        later = other if other.sequence >= self.sequence else self
        return Mark(later.sequence, max(self.pruned, other.pruned), later.checksum)


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
        remedy = f"if it is lost, or no file, remove it, and `vmmr-search repair {journal.parent}` makes it anew"
        raise ArtifactError(path, error.strerror or str(error), remedy) from error
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
        _write_new(draft, mark)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    flush_one(path.parent)


def replace(journal: Path, mark: Mark) -> None:
    """Put a mark beside a journal in place of whatever is there, by one rename."""
    path = path_of(journal)
    draft = path.with_name(f".{NAME}.{os.getpid()}.tmp")
    try:
        _write_new(draft, mark)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    flush_one(path.parent)


def _write_new(path: Path, mark: Mark) -> None:
    path.write_bytes(2 * _packed(mark) + 2 * _packed_entry(mark))
    flush(path)


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
        self._name = str(path_of(journal))
        there = os.fstat(self._descriptor)
        self._file_id = there.st_dev, there.st_ino
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
        """Return the mark as it is now. Raise ArtifactError if it is damaged, or if the file was removed or replaced."""
        if (there := file_id(self._name)) is None:
            raise missing(self._journal)
        if there != self._file_id:
            raise ArtifactError(path_of(self._journal), "was replaced while it was open", "send the write again")
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
        content = bytearray(self._content.ljust(_SIZE, b"\0"))
        for packed, at in ((_packed_entry(mark), _entry_at(older)), (_packed(mark), older * _SLOT)):
            os.pwrite(self._descriptor, packed, at)
            content[at : at + _SLOT] = packed
        os.fdatasync(self._descriptor)
        self._content = bytes(content)
        self._slots = {**self._slots, older: mark}

    def _read(self) -> dict[int, Mark]:
        """Return the slots that are as they were written; what was read before is not unpacked again."""
        content = os.pread(self._descriptor, _SIZE, 0)
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
    return _block(_FIELDS.pack(_MAGIC, _FORMAT, mark.sequence, mark.pruned))


def _packed_entry(mark: Mark) -> bytes:
    """Return the block that tells which entry a mark's last one is; zeros if that is not known."""
    if mark.checksum is None:
        return bytes(_SLOT)
    return _block(_ENTRY.pack(_ENTRY_MAGIC, mark.sequence, mark.checksum))


def _block(fields: bytes) -> bytes:
    return (fields + _CRC.pack(zlib.crc32(fields))).ljust(_SLOT, b"\0")


def _entry_at(slot: int) -> int:
    return (2 + slot) * _SLOT


def _slots(content: bytes) -> dict[int, Mark]:
    """Return the marks of the slots that are as they were written, by place."""
    return {slot: mark for slot, (form, mark) in _whole(content).items() if form == _FORMAT}


def _whole(content: bytes) -> dict[int, tuple[int, Mark]]:
    """Return format and mark of the slots that are as they were written, by place; of a later format the mark may be none."""
    found = {}
    for slot in range(2):
        if fields := _fields(content, slot * _SLOT, _FIELDS, _MAGIC):
            form, sequence, pruned = fields
            found[slot] = (form, Mark(sequence, pruned, _checksum(content, slot, sequence)))
    return found


def _checksum(content: bytes, slot: int, sequence: int) -> int | None:
    """Return the checksum of the last entry of a slot; None if its block is of another one, or not as it was written."""
    fields = _fields(content, _entry_at(slot), _ENTRY, _ENTRY_MAGIC)
    return fields[1] if fields and fields[0] == sequence else None


def _fields(content: bytes, at: int, kind: struct.Struct, magic: bytes) -> tuple[int, ...]:
    """Return what a block holds after its magic number; nothing if it is not as it was written."""
    block = content[at : at + _SLOT]
    fields, rest = block[: kind.size], block[kind.size :]
    if len(block) < _SLOT or rest != _CRC.pack(zlib.crc32(fields)).ljust(len(rest), b"\0"):
        return ()
    found, *others = kind.unpack(fields)
    return tuple(others) if found == magic else ()
