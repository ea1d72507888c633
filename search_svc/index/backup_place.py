"""The folder that backups go to, maybe elsewhere: whatever fsspec can write to. A file of it is there whole, or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from svckit.artifact import flush_one
from svckit.cli import CommandError
from svckit.redaction import without_secrets

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoomError(OSError):
    """The disk that a file is copied to has no room for it; it is named."""


@dataclass(frozen=True)
class Place:
    """Errors of all methods are a CommandError that names the file."""

    files: Any
    """An fsspec file system."""
    root: str
    shown: str
    """What the folder is called in messages: its URL, without what lets somebody in."""

    @classmethod
    def at(cls, url: str) -> "Place":
        """Raise CommandError if there is no such kind of place, or its library is not installed."""
        shown = without_secrets(url)
        if not url.strip():
            raise CommandError("the folder of backups has an empty name: give a path or a URL")
        try:
            files, root = fsspec.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise CommandError(without_secrets(f"{shown}: {error}")) from error
        return cls(files, root, shown)

    @property
    def local(self) -> Path | None:
        """Where the folder is on this machine; None if it is elsewhere."""
        return Path(self.root) if "file" in self.files.protocol else None

    def path(self, name: str) -> Path:
        """Return what a file of the folder is called in messages."""
        return Path(self._named(name))

    def names(self, folder: str = "") -> list[str]:
        """Return the names of what is in the folder, or in a folder of it; none if it is not there."""
        with self._told(folder):
            self.files.invalidate_cache()
            try:
                return [path.rpartition("/")[2] for path in self.files.ls(self._path(folder), detail=False)]
            except FileNotFoundError:
                return []

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None if it is not there."""
        with self._told(name):
            try:
                return int(self.files.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def put(self, local: Path, name: str) -> None:
        """Copy a file here."""
        with self._told(name), self._landing(name) as path:
            self.files.put_file(str(local), path)

    def write(self, name: str, content: bytes) -> None:
        with self._told(name), self._landing(name) as path:
            self.files.pipe_file(path, content)

    def get(self, name: str, local: Path) -> None:
        """Copy a file from here."""
        local.parent.mkdir(parents=True, exist_ok=True)
        with self._told(name), _reading(self._named(name)):
            try:
                self.files.get_file(self._path(name), str(local))
                if local.is_dir():
                    raise CommandError(f"{self._named(name)}: is a folder, and must be a file: remove it")
            except OSError as error:
                if error.errno in _NO_ROOM:  # reading takes none
                    raise NoRoomError(error.errno, os.strerror(error.errno), str(local)) from error
                raise

    def remove(self, name: str) -> None:
        with self._told(name), suppress(FileNotFoundError):
            self.files.rm_file(self._path(name))

    @contextmanager
    def _landing(self, name: str) -> Iterator[str]:
        """Yield the path to write a file to. On a disk of ours it gets its name once it is on the disk; elsewhere others see to that."""
        target = self._path(name)
        folder = target.rpartition("/")[0]
        try:
            self.files.makedirs(folder, exist_ok=True)
        except OSError as error:
            text = without_secrets(f"{self.shown}: no folder can be made there: {error.strerror or error}")
            raise CommandError(text) from error
        if self.local is None:
            yield target
            return
        part = Path(f"{target}.part")
        try:
            yield str(part)
            flush_one(part)
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        flush_one(Path(folder))

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def _named(self, name: str) -> str:
        return f"{self.shown.rstrip('/')}/{name}" if name else self.shown

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except (NoRoomError, CommandError):
            raise
        except OSError as error:
            raise CommandError(without_secrets(f"{self._named(name)}: {error.strerror or error}")) from error
        except Exception as error:  # each library that fsspec uses has errors of its own
            raise CommandError(without_secrets(f"{self._named(name)}: {type(error).__name__}: {error}")) from error


@contextmanager
def _reading(named: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CommandError(
            f"{named}: is missing: the next backup copies it again, if the index still has it"
        ) from error
