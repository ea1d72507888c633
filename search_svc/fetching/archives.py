"""Archives of strangers, read one file at a time: nothing is unpacked but what is asked for, to names that are not the archive's."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from svckit.artifact import ArtifactError

MOST_ENTRIES = 1_000_000
"""Files of one archive."""
MOST_BYTES = 64 << 30
"""All bytes of one archive, unpacked."""
MOST_BYTES_OF_ONE = 64 << 20
"""Bytes of one file, unpacked."""

_ANNOTATIONS = (".mat", ".csv")
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
"""What Python's readers raise over a damaged archive, one that is cut short, or one that is locked with a password."""


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    path: str
    """Its path in the archive, with `/`."""
    size: int
    """Its bytes, as the archive says."""
    read: Callable[[], bytes]
    """Returns its content, while the iteration is at this member. Raises ArtifactError."""


def members(archive: Path) -> Iterator[Member]:
    """Yield the files of a tar or zip archive, or of a folder that one was unpacked to; a file of annotations is its own only member.

    Links, devices and folders are passed over. Raise ArtifactError if it is no archive, is damaged, is larger than is taken, or has
    a name that leads out of the folder that it would be unpacked to.
    """
    if not archive.exists():
        raise ArtifactError(archive, "there is no such file or folder")
    if archive.is_dir():
        yield from _bounded(archive, _of_folder(archive))
    elif archive.suffix.lower() in _ANNOTATIONS:
        yield Member(archive.name, archive.stat().st_size, archive.read_bytes)
    else:
        with _damage_told(archive):
            form = _of_zip if zipfile.is_zipfile(archive) else _of_tar
            yield from _bounded(archive, form(archive))


_Entry = tuple[str, int, Callable[[], bytes]]
"""The path of a file, its size, and what reads it."""


def _of_folder(folder: Path) -> Iterator[_Entry]:
    for top, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(top, name)
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix(), path.stat().st_size, path.read_bytes


def _of_tar(archive: Path) -> Iterator[_Entry]:
    try:
        opened = tarfile.open(archive)  # noqa: SIM115 - closed by the `with` below
    except tarfile.ReadError as error:
        raise ArtifactError(archive, "is neither a tar nor a zip archive") from error
    with opened as tar:
        for info in tar:
            if info.isreg():
                content = tar.extractfile(info)
                assert content is not None
                yield info.name, info.size, lambda content=content: content.read(MOST_BYTES_OF_ONE + 1)  # type: ignore[misc]
        assert tar.fileobj is not None
        tar.fileobj.read(MOST_BYTES_OF_ONE)  # what compresses a tar has its checksum at the very end


def _of_zip(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = info.external_attr >> 28  # of Unix; 0 where the archive was made by another system
            if not info.is_dir() and kind in (0, 8):
                yield info.filename, info.file_size, lambda info=info: _unzipped(opened, info)  # type: ignore[misc]


def _unzipped(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with opened.open(info) as content:
        return content.read(MOST_BYTES_OF_ONE + 1)


def _bounded(archive: Path, entries: Iterator[_Entry]) -> Iterator[Member]:
    count = total = 0
    for path, size, read in entries:
        count, total = count + 1, total + size
        if count > MOST_ENTRIES or total > MOST_BYTES or size > MOST_BYTES_OF_ONE:
            raise ArtifactError(
                archive,
                f"is larger than is taken: {count} files of {total} bytes, unpacked, up to {path!r} of {size} bytes",
            )
        parts = PurePosixPath(path.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise ArtifactError(archive, f"has a file {path!r}, which leads out of its folder: nothing was unpacked")
        yield Member(str(parts), size, lambda path=path, read=read: _read(archive, path, read))  # type: ignore[misc]


def _read(archive: Path, path: str, read: Callable[[], bytes]) -> bytes:
    with _damage_told(archive):
        content = read()
    if len(content) > MOST_BYTES_OF_ONE:
        raise ArtifactError(archive, f"{path!r} is larger than is said")
    return content


@contextmanager
def _damage_told(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ArtifactError(archive, f"is damaged, or not all of it is there: {error}") from error
