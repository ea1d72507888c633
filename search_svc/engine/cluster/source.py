"""Where the nodes find the files of an index version, and how they check them."""

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from search_svc.index.version import EMBEDDINGS_FILE, MANIFEST_FILE, IndexVersion, VersionManifest, listed
from svckit.artifact import ArtifactError, check_size, sha256
from svckit.redaction import without_secrets

_CHUNK_BYTES = 2**22
_LOCK = "lock"
_KEPT_S = 3600.0
"""Seconds that a copy is kept which nothing on the node uses: a replica that comes back finds it."""


@dataclass(frozen=True)
class VersionSource:
    """An index version, as far as the nodes need to know it."""

    key: str
    """Name of the version, and the beginning of its manifest's sha256: it says what is in the version, wherever that lies."""
    manifest: VersionManifest
    folder: str
    """Path or URL of the version, for fsspec. A path is one that all nodes mount."""
    cache: str
    """Path of the folder in which a node keeps copies of what comes from a URL."""
    seal: str
    """The sha256 of the version's manifest."""
    sha256: Mapping[str, str]
    """File -> its sha256."""
    sizes: Mapping[str, int]
    """File -> its bytes."""

    @classmethod
    def of(cls, version: IndexVersion, storage: str, cache: str) -> "VersionSource":
        """Return the source of a version. `storage` is the path or URL of the index data directory, for the nodes."""
        seal, files = listed(version.path)
        name = version.manifest.version
        folder = f"{storage.rstrip('/')}/versions/{name}"
        digests = {file: entry["sha256"] for file, entry in files.items()}
        sizes = {file: entry["bytes"] for file, entry in files.items()}
        return cls(f"{name}-{seal[:16]}", version.manifest, folder, cache, seal, digests, sizes)


class NodeFiles:
    """The files of a version on the node where this process runs. They stay there as long as this object does."""

    def __init__(self, source: VersionSource) -> None:
        self._source = source
        try:
            self._fs, self._folder = fsspec.core.url_to_fs(source.folder)
        except (ValueError, ImportError) as error:
            raise ArtifactError(_shown(source.folder), without_secrets(str(error))) from error
        self._shared = "file" in _protocols(self._fs)
        self._locks: list[int] = []
        if self._shared:
            self._check_version()

    def shard(self, number: int) -> Path:
        """Return a shard's file, after checking every byte of it. Raise ArtifactError naming the file that is wrong."""
        name = self._source.manifest.shards[number].file
        path = self._found(name)
        # A copy was checked as it was made; the disk may have changed it since.
        if (digest := sha256(path)) != self._source.sha256[name]:
            if not self._shared:
                path.unlink()
            raise ArtifactError(path, f"sha256 is {digest}, the manifest says {self._source.sha256[name]}")
        return path

    def embeddings(self) -> Path:
        """Return the file of embeddings. It is checked as it is copied; on shared storage, where it may be too large to be read for that, its size is."""
        return self._found(EMBEDDINGS_FILE)

    def _found(self, name: str) -> Path:
        if self._shared:
            path = self._there(name)
            check_size(path, self._source.sizes[name])
            return path
        cache = _own_folder(Path(self._source.cache))
        path = cache / self._source.sha256[name]
        with (cache / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # replicas of other shards on this node need the same embeddings
            if not path.exists():
                _discard_unused(cache)
                self._copy(name, path)
            self._hold(path)
        return path

    def _check_version(self) -> None:
        """Raise ArtifactError unless the version that this node sees is, by its manifest, the one that the front end has opened."""
        if (seal := listed(self._there(MANIFEST_FILE).parent)[0]) != self._source.seal:
            raise ArtifactError(
                Path(self._folder) / MANIFEST_FILE,
                f"sha256 is {seal}, that of the version which the front end has opened is {self._source.seal}: "
                "this node has another index under that path",
            )

    def _there(self, name: str) -> Path:
        path = Path(self._folder) / name
        if not path.is_file():
            raise ArtifactError(path, "is not there on this node: its index must be on storage that all nodes share")
        return path

    def _copy(self, name: str, path: Path) -> None:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        url = f"{self._folder}/{name}"
        try:
            if (digest := self._read(url, draft)) != path.name:
                raise ArtifactError(_shown(url), f"sha256 is {digest}, the manifest says {path.name}")
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)

    def _read(self, url: str, draft: Path) -> str:
        """Copy what is at a URL, and return its sha256."""
        digest = hashlib.sha256()
        try:
            with self._fs.open(url, "rb") as file, draft.open("wb") as copy:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())  # a copy is trusted by its name, also after the node has lost its power
        except OSError as error:
            raise ArtifactError(_shown(url), without_secrets(str(error))) from error
        except Exception as error:  # each library that fsspec uses has errors of its own
            raise ArtifactError(_shown(url), without_secrets(f"{type(error).__name__}: {error}")) from error
        return digest.hexdigest()

    def _hold(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(path)
        self._locks.append(descriptor)


def _shown(url: str) -> Path:
    """Return what a URL is called in messages."""
    return Path(without_secrets(url))


def _own_folder(cache: Path) -> Path:
    """Return the folder in `cache` that this user alone writes to: of copies of embeddings, only the name is looked at."""
    folder = cache / f"copies-{os.getuid()}"
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ArtifactError(folder, f"cannot keep copies on this node: {error.strerror}") from error
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ArtifactError(folder, "others can write to it: copies that are kept there could be anybody's")
    return folder


def _discard_unused(cache: Path) -> None:
    """Remove the copies that no replica has held for an hour."""
    for path in cache.iterdir():
        with suppress(OSError):
            if path.name == _LOCK or path.stat().st_mtime > time.time() - _KEPT_S:
                continue
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
