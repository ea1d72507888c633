"""Restore a folder of one backup, as earlier releases made them: an index, and a `manifest.json` that lists its files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from search_svc.index import journal_file, journal_mark
from search_svc.index.backup_place import Place
from search_svc.index.journal_check import verify
from search_svc.index.version import IndexVersion
from svckit.artifact import ArtifactError, atomic_directory, read_manifest, read_object, sealed
from svckit.cli import CommandError, progress

_MANIFEST = "manifest.json"
_KIND = "backup"


def restore_single(place: Place, index_dir: Path) -> tuple[str, int, int]:
    """Make an index of the backup, and return its version, the sequence of its last write, and its bytes.

    Raise ArtifactError, naming the file, if the backup did not end or is damaged, and CommandError if it can't be read.
    """
    with atomic_directory(index_dir) as draft, _another_helps():
        fields = _fetched_manifest(place, draft)
        names = [_inside(name, place) for name in fields["files"]]
        for name in progress(names, desc="restore", unit="file"):
            place.get(name, draft / name)
        with _named_in(place, draft):
            read_manifest(draft)
            if (draft / journal_file.FILE).exists():
                journal_file.mark_copy(draft / journal_file.FILE)
            _check_whole(draft, fields)
        (draft / _MANIFEST).unlink()
        size = sum(entry["bytes"] for entry in fields["files"].values())
    return str(fields["version"]), int(fields["journal_sequence"]), size


def check_journal(draft: Path) -> int:
    """Read the whole journal of an index that is being restored, as `verify` does, and leave no file that SQLite made for that."""
    last = verify(draft)
    for made_by_reading in journal_file.files(draft / journal_file.FILE)[1:]:
        made_by_reading.unlink(missing_ok=True)
    return last


def _check_whole(draft: Path, fields: Mapping[str, Any]) -> None:
    """Raise ArtifactError if version and journal are not what the manifest of the backup tells: their own checksums are older."""
    version = IndexVersion.open(draft)
    if (held := version.manifest.journal_sequence) and not (draft / journal_file.FILE).exists():
        journal_mark.create(draft / journal_file.FILE, journal_mark.Mark(held, held))
    last = max(check_journal(draft), version.manifest.journal_sequence)
    if (version.path.name, last) != (fields["version"], fields["journal_sequence"]):
        told = f"version {fields['version']} and the journal to {fields['journal_sequence']}"
        found = f"version {version.path.name} and the journal to {last}"
        raise ArtifactError(draft / _MANIFEST, f"says that it is of {told}; there are {found}")


@contextmanager
def _named_in(place: Place, draft: Path) -> Iterator[None]:
    """Tell what is wrong with a copy of the file that it was copied from."""
    try:
        yield
    except ArtifactError as error:
        path = place.path(error.path.relative_to(draft).as_posix())
        raise ArtifactError(path, error.reason.replace(str(draft), place.shown)) from error


def _fetched_manifest(place: Place, draft: Path) -> dict[str, Any]:
    place.get(_MANIFEST, draft / _MANIFEST)
    with _named_in(place, draft):
        fields = read_object(draft / _MANIFEST)
        if fields.get("kind") != _KIND or sealed(fields) != fields:
            raise ArtifactError(draft / _MANIFEST, "is no manifest of a backup, or was edited")
    return fields


@contextmanager
def _another_helps() -> Iterator[None]:
    """Say of what is damaged that nothing mends a backup."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(error.path, error.reason, "restore another backup") from error


def _inside(name: str, place: Place) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise CommandError(f"{place.shown}: its manifest lists {name!r}, which is outside of it")
    return name
