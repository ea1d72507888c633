"""Backups: an index as it is at one moment, copied while it serves, to a folder or to wherever fsspec can write.

```
BACKUP/
    versions/000001/    the version that was current
    journal.db          the journal as it was a moment later; absent if nothing was ever written
    CURRENT
    manifest.json       size and sha256 of the other files; written last, so a backup without it did not end
```

Version and journal are the gallery: every write that was acknowledged before the backup began is in it, and of later ones
those that were whole when the journal was copied.
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from search_svc.index import journal_file, journal_mark
from search_svc.index.index_dir import make_current
from search_svc.index.journal import Journal
from search_svc.index.journal_check import verify
from search_svc.index.journal_errors import translate_sqlite_errors
from search_svc.index.journal_snapshot import checked
from search_svc.index.version import IndexVersion
from search_svc.index.version_lease import VersionLease
from svckit.artifact import (
    ArtifactError,
    atomic_directory,
    file_names,
    flush,
    read_manifest,
    read_object,
    sealed,
    sha256s,
)
from svckit.cli import CommandError, progress

_MANIFEST = "manifest.json"
_KIND = "backup"


@dataclass(frozen=True)
class Backup:
    version: str
    journal_sequence: int
    """Of the last write that is in it."""
    size: int
    """Bytes."""


def back_up(index_dir: Path, destination: str) -> Backup:
    """Copies the index to a folder that is new or empty, a path or a URL.

    Raises ArtifactError, naming the file, if one is damaged, and CommandError if the destination can't be used.
    """
    place = _Place.at(destination)
    place.check_empty()
    lease = VersionLease.current(index_dir)
    try:
        version = IndexVersion.open(index_dir, lease.path.name)
        with tempfile.TemporaryDirectory() as work:
            files = {f"versions/{version.path.name}/{name}": version.path / name for name in file_names(version.path)}
            sequence = _copy_journal(index_dir, version, Path(work))
            make_current(Path(work), version.path.name)
            # Not what SQLite has made beside the copy to read it.
            files |= {
                name: Path(work) / name for name in file_names(Path(work)) if name in ("CURRENT", journal_file.FILE)
            }
            size = _upload(place, files, {"version": version.path.name, "journal_sequence": sequence})
    finally:
        lease.release()
    return Backup(version.path.name, sequence, size)


def restore(source: str, index_dir: Path) -> Backup:
    """Makes an index of a backup, whole or not at all; `index_dir` must not be there.

    Raises ArtifactError, naming the file, if the backup did not end or is damaged, and CommandError if it can't be read.
    """
    place = _Place.at(source)
    with atomic_directory(index_dir) as draft, _another_helps():
        fields = _fetched_manifest(place, draft)
        names = [_inside(name, place) for name in fields["files"]]
        for name in progress(names, desc="restore", unit="file"):
            place.get(name, draft / name)
        with place.blamed(draft):
            read_manifest(draft)
            if (draft / journal_file.FILE).exists():
                journal_file.mark_copy(draft / journal_file.FILE)
            _check_whole(draft, fields)
        (draft / _MANIFEST).unlink()
        size = sum(entry["bytes"] for entry in fields["files"].values())
    return Backup(str(fields["version"]), int(fields["journal_sequence"]), size)


@dataclass(frozen=True)
class _Place:
    """A folder, maybe elsewhere."""

    files: Any
    """An fsspec file system."""
    root: str

    @classmethod
    def at(cls, url: str) -> "_Place":
        """Raises CommandError if there is no such kind of place, or its library is not installed."""
        try:
            return cls(*fsspec.url_to_fs(url))
        except (ValueError, ImportError) as error:
            raise CommandError(f"{url}: {error}") from error

    def check_empty(self) -> None:
        """Raises CommandError if there is something."""
        with self._told():
            if self.files.exists(self.root) and (not self.files.isdir(self.root) or self.files.ls(self.root)):
                raise CommandError(f"{self.root} is there already: a backup goes to a new or empty folder")

    def put(self, local: Path, name: str) -> None:
        with self._told(name):
            target = self._path(name)
            self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self.files.put_file(str(local), target)
        self._flush(target)

    def write(self, name: str, content: bytes) -> None:
        with self._told(name):
            self.files.pipe_file(self._path(name), content)
        self._flush(self._path(name))
        self._flush(self.root)

    def get(self, name: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        with self._told(name):
            self.files.get_file(self._path(name), str(local))

    @contextmanager
    def blamed(self, draft: Path) -> Iterator[None]:
        """What is wrong with a file of the draft is told of the file that it was copied from."""
        with _named_in(Path(self._path("")), draft):
            yield

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _flush(self, path: str) -> None:
        """On a disk of ours it stays there even if the power fails; other places see to that themselves."""
        if "file" in self.files.protocol:
            flush(Path(path))

    @contextmanager
    def _told(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise CommandError(f"{self._path(name)}: is missing: no backup, or one that did not end") from error
        except OSError as error:
            raise CommandError(f"{self._path(name)}: {error.strerror or error}") from error


def _copy_journal(index_dir: Path, version: IndexVersion, work: Path) -> int:
    """Returns the number of the last entry that version and journal hold. Raises ArtifactError if some are missing."""
    path = index_dir / journal_file.FILE
    mark = journal_mark.read(path)
    with translate_sqlite_errors(path):
        source = journal_file.connect_to_read(path)
        if source is None:
            journal_file.refuse_missing(path, mark, there=False)
            return version.manifest.journal_sequence
        with closing(source), closing(sqlite3.connect(work / journal_file.FILE)) as copy:
            source.backup(copy)
            checked(copy, path, mark)
    with _named_in(index_dir, work):
        journal_file.mark_copy(work / journal_file.FILE)
        last = verify(work)
        with Journal.open(work) as journal:
            pruned = journal.pruned
    if pruned > version.manifest.journal_sequence:
        raise ArtifactError(path, "was pruned while it was copied: another version is current now, begin again")
    return max(last, version.manifest.journal_sequence)


def _check_whole(draft: Path, fields: Mapping[str, Any]) -> None:
    """Raises ArtifactError if version and journal are not what the manifest of the backup tells: their own checksums are older."""
    version = IndexVersion.open(draft)
    last = max(verify(draft), version.manifest.journal_sequence)
    for made_by_reading in ("-wal", "-shm"):
        (draft / f"{journal_file.FILE}{made_by_reading}").unlink(missing_ok=True)
    if (version.path.name, last) != (fields["version"], fields["journal_sequence"]):
        told = f"version {fields['version']} and the journal to {fields['journal_sequence']}"
        found = f"version {version.path.name} and the journal to {last}"
        raise ArtifactError(draft / _MANIFEST, f"says that it is of {told}; there are {found}")


@contextmanager
def _named_in(index_dir: Path, copy: Path) -> Iterator[None]:
    """What is wrong with a copy is told of what it was copied from."""
    try:
        yield
    except ArtifactError as error:
        reason = error.reason.replace(str(copy), str(index_dir))
        raise ArtifactError(index_dir / error.path.relative_to(copy), reason) from error


def _upload(place: _Place, files: Mapping[str, Path], fields: Mapping[str, Any]) -> int:
    """Copies the files, and then tells of them in the manifest; returns the bytes of all."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    digests = dict(zip(files, sha256s(list(files.values())), strict=True))
    for name, path in progress(files.items(), total=len(files), desc="backup", unit="file"):
        place.put(path, name)
    listed = {name: {"sha256": digests[name], "bytes": sizes[name]} for name in files}
    manifest = {"kind": _KIND, **fields, "created": datetime.now(UTC).isoformat(), "files": listed}
    place.write(_MANIFEST, f"{json.dumps(sealed(manifest), indent=2)}\n".encode())
    return sum(sizes.values())


def _fetched_manifest(place: _Place, draft: Path) -> dict[str, Any]:
    place.get(_MANIFEST, draft / _MANIFEST)
    with place.blamed(draft):
        fields = read_object(draft / _MANIFEST)
        if fields.get("kind") != _KIND or sealed(fields) != fields:
            raise ArtifactError(draft / _MANIFEST, "is no manifest of a backup, or was edited")
    return fields


@contextmanager
def _another_helps() -> Iterator[None]:
    """Nothing mends a damaged backup."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(error.path, error.reason, "restore another backup") from error


def _inside(name: str, place: _Place) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise CommandError(f"{place.root}: its manifest lists {name!r}, which is outside of it")
    return name
