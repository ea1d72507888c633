"""The folder that the photos of a manifest are in: one on a disk, or one in object storage, which fsspec reads by a URL."""

import errno
import functools
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from embedder_svc.photos import photo_files
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from svckit.redaction import without_secrets

AHEAD = 32
"""Photos that a process asks of object storage at once: the storage takes far longer to answer than a core to decode."""
_MOST_CONNECTIONS = 256
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG)
"""Errors that are the photo's own, also in storage: the manifest names what is no file."""

Made = TypeVar("Made")


class FetchError(CommandError):
    """Raised where storage does not give a photo for a reason that is not the photo's."""


class PhotoFolder(Protocol):
    """A value that can be sent to another process."""

    @property
    def identity(self) -> str:
        """What tells the folder from others, in any process. It holds no secrets."""

    def for_others(self) -> "PhotoFolder":
        """Return the folder as other processes find it."""

    def check(self, name: str) -> None:
        """Raise ArtifactError or CommandError if the folder is not there or can't be read. `name` is that of one of its photos."""

    def named(self, name: str) -> str:
        """Return what a photo is called in messages."""

    def readers(self, workers: int) -> int:
        """Return how many threads should read photos so that `workers` of them have something to decode."""

    def attempt(self, name: str, use: Callable[[bytes], Made]) -> Made | str:
        """Return what `use` makes of a photo's content, or why it can't.

        Of a file that is too large no more is asked for than shows it; a server of HTTP that has no ranges sends all of it. Raise FetchError if that is not the photo's fault.
        """


@dataclass(frozen=True)
class LocalFolder:
    path: Path

    @property
    def identity(self) -> str:
        return str(self.path.resolve())

    def for_others(self) -> "LocalFolder":
        return LocalFolder(self.path.resolve())

    def check(self, name: str) -> None:  # noqa: ARG002 (a disk tells whether there is a folder)
        if not self.path.is_dir():
            raise ArtifactError(self.path, "is not a directory")

    def named(self, name: str) -> str:
        return str(self.path / name)

    def readers(self, workers: int) -> int:
        return workers

    def attempt(self, name: str, use: Callable[[bytes], Made]) -> Made | str:
        return photo_files.attempt(self.path / name, use)


@dataclass(frozen=True)
class StoredFolder:
    """A folder that is read over a network."""

    url: str = field(repr=False)

    @property
    def identity(self) -> str:
        return re.split(r"[?#]", without_secrets(self.url))[0].rstrip("/") + self._signs_in_path()

    def for_others(self) -> "StoredFolder":
        return self

    def check(self, name: str) -> None:
        self.attempt(name, len)

    def named(self, name: str) -> str:
        return f"{self.identity}/{name}"

    def readers(self, workers: int) -> int:
        return max(workers, AHEAD)

    def attempt(self, name: str, use: Callable[[bytes], Made]) -> Made | str:
        return photo_files.attempt_with(functools.partial(self._content, name), use)

    def _signs_in_path(self) -> str:
        """Return what the path in the storage has from a `?` or `#` on. In most URLs a query or fragment begins there, which may let somebody in."""
        if _by_http(self.url):
            return ""
        _, root = _files(self.url)
        found = re.search(r"[?#].*", without_secrets(root).rstrip("/"))
        return found[0] if found else ""

    def _content(self, name: str) -> bytes:
        """Return a photo's content, or its beginning. Raise OSError or ValueError as a disk does if there is no such file, or FetchError."""
        files, root = _files(self.url)
        path = _joined(root, name)
        most = photo_files.LIMITS.max_bytes + 1
        try:
            content: bytes = files.cat_file(path, start=0, end=most)
        except Exception as error:  # noqa: BLE001 (each library that fsspec uses has errors of its own)
            return self._without_content(name, error)
        return content[:most]

    def _without_content(self, name: str, error: Exception) -> bytes:
        """Return no bytes if the photo has none: storage has no range of an empty file. Raise what `_content` raises otherwise."""
        files, root = _files(self.url)
        if number := _no_file(error):
            self._check_there(files, root)
            raise OSError(number, os.strerror(number)) from None
        if _is_empty(files, _joined(root, name)):
            return b""
        # The library's own error may have the URL in it, and Ray writes down what caused an error.
        raise FetchError(
            without_secrets(
                f"{self.named(name)}: can't be fetched: {_said(error)}; it is not left out: once that is mended, the same command goes on from here"
            )
        ) from None

    def _check_there(self, files: Any, root: str) -> None:
        """Raise FetchError if the whole folder is missing: storage says so of each photo, as if it alone were."""
        if _by_http(root):
            return  # there are no folders
        try:
            files.info(root)
        except FileNotFoundError:
            raise FetchError(f"{self.identity}: there is no such bucket or folder") from None
        except Exception as error:  # noqa: BLE001 (as above)
            raise FetchError(without_secrets(f"{self.identity}: can't be looked at: {_said(error)}")) from None


def at(place: str) -> PhotoFolder:
    """Return the folder at a path or URL. Raise CommandError if there is no such kind of URL, or its library is not installed."""
    if "://" not in place:
        return LocalFolder(Path(place))
    files, root = _files(place)
    return LocalFolder(Path(root)) if isinstance(files, LocalFileSystem) else StoredFolder(place)


_opening = threading.Lock()


def _files(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the folder's path in it, for this thread: only those that are asynchronous can be shared."""
    with _opening:
        files, root = _opened(url, None)
        return (files, root) if files.async_impl else _opened(url, threading.get_ident())


@functools.cache
def _opened(url: str, thread: int | None) -> tuple[Any, str]:  # noqa: ARG001 (one for each)
    try:
        files, root = fsspec.url_to_fs(url)
    except Exception as error:  # noqa: BLE001 (a library that is missing, or an error of its own)
        raise FetchError(without_secrets(f"{without_secrets(url)}: {_said(error)}")) from None
    if isinstance(options := getattr(files, "config_kwargs", None), dict):
        options.setdefault("max_pool_connections", _MOST_CONNECTIONS)  # s3fs would have ten
    return files, root


def _joined(root: str, name: str) -> str:
    """Return the path of a photo in its storage. Raise ValueError if no file can have the name."""
    inside = PurePosixPath(name)
    if "\0" in name:
        raise ValueError("embedded null byte")
    if not _by_http(root):
        return f"{root.rstrip('/')}/{inside}"
    address = urlsplit(root)
    return address._replace(path=f"{address.path.rstrip('/')}/{quote(str(inside))}").geturl()


def _by_http(root: str) -> bool:
    return root.startswith(("http://", "https://"))


def _no_file(error: Exception) -> int | None:
    """Return the number of an error that says there is no such file; None of any other."""
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    return error.errno if isinstance(error, OSError) and error.errno in _NO_FILE else None


def _is_empty(files: Any, path: str) -> bool:
    try:
        return bool(files.info(path)["size"] == 0)
    except Exception:  # noqa: BLE001 (what was wrong before is what is told)
        return False


def _said(error: Exception) -> str:
    """Return what an error says, on one line, with its kind if that is a library's own."""
    said = str(getattr(error, "strerror", None) or error)
    plain = said and isinstance(error, (OSError, ImportError, ValueError))
    return " ".join((said if plain else f"{type(error).__name__}: {said}").split())
