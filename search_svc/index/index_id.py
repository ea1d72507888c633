"""Which index this is: a text in its file ID, made by its first backup, which every backup of it names and an index of one has again.

So a folder of backups is of one index, wherever that is moved to, and of what is restored of it.
"""

import errno
import secrets
import zlib
from pathlib import Path

from svckit.artifact import ArtifactError, atomic_write

_FILE = "ID"
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_REMOVE_IT = (
    "remove it, and name a new folder for the backups, or copy the file from an index that was restored of them"
)


def found_or_made(index_dir: Path) -> str:
    """Return the id of an index; an empty text if it has none and its folder cannot be written. Call it inside the only backup's lock.

    Raise ArtifactError if it is damaged.
    """
    if found := _read(index_dir):
        return found
    made = secrets.token_hex(16)
    try:
        write(index_dir, made)
    except OSError as error:
        if error.errno in _UNWRITABLE:
            return ""
        raise
    return made


def write(index_dir: Path, index_id: str) -> None:
    atomic_write(index_dir / _FILE, f"{index_id} {_checksum(index_id)}\n".encode())


def _read(index_dir: Path) -> str:
    path = index_dir / _FILE
    try:
        index_id, _, checksum = path.read_bytes().decode(errors="replace").rstrip("\n").partition(" ")
    except FileNotFoundError:
        return ""
    if not index_id or checksum != _checksum(index_id):
        raise ArtifactError(path, "is not as it was written", _REMOVE_IT)
    return index_id


def _checksum(index_id: str) -> str:
    return f"{zlib.crc32(index_id.encode()):08x}"
