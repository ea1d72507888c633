"""The folder that backups go to, maybe elsewhere: whatever fsspec can write to. A file of it is there whole, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from svckit.artifact import flush_one
from svckit.cli import CommandError
from svckit.redaction import without_secrets


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
        try:
            files, root = fsspec.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise CommandError(without_secrets(f"{shown}: {error}")) from error
        return cls(files, root, shown)

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
        with self._told(name):
            self.files.get_file(self._path(name), str(local))

    def remove(self, name: str) -> None:
        with self._told(name), suppress(FileNotFoundError):
            self.files.rm_file(self._path(name))

    @contextmanager
    def _landing(self, name: str) -> Iterator[str]:
        """Yield the path to write a file to. On a disk of ours it gets its name once it is on the disk; elsewhere others see to that."""
        target = self._path(name)
        folder = target.rpartition("/")[0]
        self.files.makedirs(folder, exist_ok=True)
        if "file" not in self.files.protocol:
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
        except FileNotFoundError as error:
            raise CommandError(f"{self._named(name)}: is missing: no backup, or one that did not end") from error
        except OSError as error:
            raise CommandError(without_secrets(f"{self._named(name)}: {error.strerror or error}")) from error
        except Exception as error:  # each library that fsspec uses has errors of its own
            raise CommandError(without_secrets(f"{self._named(name)}: {type(error).__name__}: {error}")) from error
