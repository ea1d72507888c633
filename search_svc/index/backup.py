"""Backups of an index as it is at one moment, copied while it serves, to a folder of backups; `backup_records` says what that holds.

Version and journal are the gallery: every write that was acknowledged before a backup began is in it, and of later ones
those that were whole when the journal was looked at. Only what the folder lacks is copied. A backup can be restored as it was at its own
moment, or at any earlier write that its versions and its part of the journal go back to.
"""

import errno
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from search_svc.index import backup_records as records
from search_svc.index import journal_file, journal_mark, journal_segment, lineage
from search_svc.index.backup_place import Place
from search_svc.index.backup_records import File, Record, StoredSegment, StoredVersion
from search_svc.index.backup_single import check_journal, restore_single
from search_svc.index.index_dir import make_current, version_path, way_out
from search_svc.index.journal_format import Meta
from search_svc.index.journal_segment import Segment
from search_svc.index.journal_snapshot import Snapshot
from search_svc.index.lineage import Lineage
from search_svc.index.locks import locked
from search_svc.index.version import IndexVersion
from search_svc.index.version_lease import VersionLease
from svckit.artifact import ArtifactError, atomic_directory, read_sealed, sha256, sha256s
from svckit.cli import CommandError, progress

_MANIFEST = "manifest.json"
_LASTING = (errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
"""Errors over a folder that cannot be made, which do not pass by themselves."""
_COPIED_AGAIN = "remove this file, and the next backup copies it again, if the index still has it"
_AN_EARLIER_ONE = "`--at-sequence` restores the gallery as it was earlier"

_log = logging.getLogger(__name__)


class BackupRunningError(ArtifactError):
    """Raised where another process is backing up the same index."""


@dataclass(frozen=True)
class Backup:
    version: str
    journal_sequence: int
    """Of the last write that is in it."""
    size: int
    """Bytes of all its files."""
    copied: int = 0
    """Of them, those that its folder lacked."""


def back_up(index_dir: Path, destination: str, keep: int = 0) -> Backup:
    """Add a backup of an index to a folder of backups, a path or a URL; then remove all but the newest `keep`, if that is not 0.

    Raise ArtifactError, naming the file, if one is damaged, BackupRunningError if another process backs up the index, and CommandError if
    the folder can't be used, or is of another index.
    """
    place = Place.at(destination)
    refuse_inside(index_dir, place)
    lease = VersionLease.current(index_dir)
    try:
        with _only_backup(index_dir), _work(index_dir) as work:
            records.refuse_foreign(place)
            done = _add(index_dir, lease.path.name, place, work)
            if keep:
                records.remove_old(place, keep, work)
    finally:
        lease.release()
    return done


def check_destination(index_dir: Path, destination: str) -> None:
    """Raise CommandError if backups of the index can't go there, as far as can be seen; a folder of this machine is made.

    That its disk has no room, or fails, may pass: it is no reason.
    """
    place = Place.at(destination)
    refuse_inside(index_dir, place)
    if place.local is None:
        return
    try:
        place.local.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in _LASTING:
            raise CommandError(f"{place.shown}: cannot be made: {error.strerror}") from error
        return
    records.refuse_foreign(place)


def refuse_inside(index_dir: Path, place: Place) -> None:
    """Raise CommandError if a folder of backups is inside the index: it would be lost with it."""
    if place.local and place.local.resolve().is_relative_to(index_dir.resolve()):
        raise CommandError(f"{place.shown}: is inside of the index, and would be lost with it: name another folder")


def refuse_another(source: str, index_dir: Path) -> None:
    """Raise CommandError if the newest backup is known to be of another index."""
    place = Place.at(source)
    with tempfile.TemporaryDirectory() as work:
        newest, ours = next(records.newest_first(place, Path(work)), None), lineage.find(index_dir)
    if newest is None:
        return
    if (theirs := newest.lineage).index not in ("", ours.index):
        raise CommandError(f"{_of_another(place, theirs, index_dir, ours)}: name the index that it is of")


def restore(source: str, index_dir: Path, at_sequence: int | None = None) -> Backup:
    """Make an index of the newest backup, whole or not at all; `index_dir` must not be there.

    With `at_sequence` it is the gallery after the last write that had ended by that journal entry. Raise ArtifactError, naming the
    file, if one that is needed is damaged, and CommandError if there is no such backup or it can't be read.
    """
    place = Place.at(source)
    if records.OLDER in place.names():
        if at_sequence is not None:
            raise CommandError(f"{source} is one backup of an earlier release: it has no other sequence than its own")
        return Backup(*restore_single(place, index_dir))
    with atomic_directory(index_dir) as draft, tempfile.TemporaryDirectory() as work:
        record, version, goes_on = _chosen(place, at_sequence, Path(work))
        upto = record.sequence if at_sequence is None else at_sequence
        done = _restore(place, record, version, upto, draft=draft, work=Path(work))
        if goes_on.index:
            lineage.write(draft, goes_on.branch(done.journal_sequence))
        if at_sequence is None and done.journal_sequence != record.sequence:
            text = f"says that it goes to entry {record.sequence}, and what it names goes to {done.journal_sequence}"
            raise ArtifactError(place.path(record.name), text, _AN_EARLIER_ONE)
        return done


def _add(index_dir: Path, current: str, place: Place, work: Path) -> Backup:
    numbers = records.numbers(place)
    readable = records.newest_first(place, work)
    newest = next(readable, None)
    ours = lineage.found_or_made(index_dir)
    if newest:
        _refuse_another(index_dir, ours, place, newest.lineage)
    copied = [each for each in newest.segments if place.size(each.file.name) == each.file.bytes] if newest else []
    with _way_out(index_dir, current):
        version = _version(version_path(index_dir, current))
    with journal_segment.open_source(index_dir / journal_file.FILE) as snapshot:
        segments, new = _segments(snapshot, copied, work)
        pruned = snapshot.meta.pruned if snapshot else version.journal_sequence
        sequence = max(snapshot.last if snapshot else 0, version.journal_sequence)
        if newest:
            ours = _going_on(index_dir, ours, newest, sequence, snapshot)
    if pruned > version.journal_sequence:
        path = index_dir / journal_file.FILE
        raise ArtifactError(path, "was pruned while it was copied: another version is current now, begin again")
    backups = [newest] if newest else []
    if newest and newest.lineage.history != ours.history:
        _log.warning(
            "the folder of backups goes on with another history of its index from here on, and refuses the one before",
            extra={"backups": place.shown, "shared_until": ours.shared.get(newest.lineage.history, 0)},
        )
        # The history before may have let go of versions that are still here.
        backups = [newest, *readable]
    versions = [*_still_there(index_dir, backups, pruned, current), version]
    record = Record(
        lineage=ours,
        number=(numbers[-1] if numbers else 0) + 1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sequence=sequence,
        current=current,
        versions=sorted(versions, key=lambda each: int(each.name)),
        segments=segments,
    )
    local = {
        file.name: version_path(index_dir, each.name) / name for each in versions for name, file in each.files.items()
    }
    with _way_out(index_dir, current):
        copied_bytes = _copy_missing(place, record.files, local | new)
    if records.numbers(place)[-1:] != numbers[-1:]:
        raise CommandError(f"{place.shown}: another index was backed up to it meanwhile: two must not share a folder")
    record.write(place)
    return Backup(current, sequence, sum(file.bytes for file in record.files.values()), copied_bytes)


def _refuse_another(index_dir: Path, ours: Lineage, place: Place, newest: Lineage) -> None:
    """Raise CommandError if a backup of the index, whose lineage is `ours`, must not follow the newest one."""
    if newest.index not in ("", ours.index):
        raise CommandError(f"{_of_another(place, newest, index_dir, ours)}: name another folder")
    if newest.index and not ours.has(newest.history, 0):
        raise CommandError(
            f"{place.shown} goes on with the backups of an index that was restored of it, or is a copy: two must not share a folder, "
            f"so name another one for {index_dir}"
        )


def _of_another(place: Place, theirs: Lineage, index_dir: Path, ours: Lineage) -> str:
    mine = ours.index or "one that has no id"
    return f"{place.shown} is of another index, {theirs.index}, and {index_dir} is {mine}"


def _going_on(index_dir: Path, ours: Lineage, newest: Record, sequence: int, snapshot: Snapshot | None) -> Lineage:
    """Return the lineage of what is backed up: a new history if the newest backup is of the same one, and has other entries than the journal.

    So it is if this is a copy of the index, or a copy was backed up, or if its files were put back as they were before.
    """
    if not ours.index or ours.history != newest.lineage.history:
        return ours
    parting = journal_segment.parting(snapshot, [each.segment for each in newest.segments])
    if parting is None and newest.sequence <= sequence:
        return ours
    ours = ours.branch(parting or 0)
    lineage.write(index_dir, ours)
    return ours


def _version(path: Path) -> StoredVersion:
    """Return what there is to copy of a version, as its manifest tells. Raise ArtifactError if that is damaged."""
    manifest = path / _MANIFEST
    fields = read_sealed(manifest)
    files = {name: File(entry["sha256"], entry["bytes"]) for name, entry in fields["files"].items()}
    own = File(sha256(manifest), manifest.stat().st_size)
    return StoredVersion(path.name, fields.get("journal_sequence", 0), {**files, _MANIFEST: own})


def _still_there(index_dir: Path, backups: Iterable[Record], pruned: int, current: str) -> Iterator[StoredVersion]:
    """Yield the other versions that are in these backups, and that together with the journal are still the gallery."""
    copied = {(each.name, each.files[_MANIFEST].sha256): each for backup in backups for each in backup.versions}
    for stored in copied.values():
        manifest = version_path(index_dir, stored.name) / _MANIFEST
        serves = stored.name != current and stored.journal_sequence >= pruned and manifest.is_file()
        if serves and sha256(manifest) == stored.files[_MANIFEST].sha256:
            yield stored


def _segments(
    snapshot: Snapshot | None, copied: Sequence[StoredSegment], work: Path
) -> tuple[list[StoredSegment], dict[str, Path]]:
    """Return the segments of a backup, and the files of those that are new, by their names in the folder of backups."""
    if snapshot is None:
        return [], {}
    kept, missing = journal_segment.missing_from(snapshot, [each.segment for each in copied])
    stored = {each.segment: each for each in copied}
    made = [_written(snapshot, segment, work / f"segment-{segment.last}") for segment in missing]
    new = {each.file.name: work / f"segment-{each.segment.last}" for each in made}
    return [*(stored[segment] for segment in kept), *made], new


def _written(snapshot: Snapshot, segment: Segment, path: Path) -> StoredSegment:
    journal_segment.write(snapshot, segment, path)
    return StoredSegment(segment, File(sha256(path), path.stat().st_size))


def _copy_missing(place: Place, files: Mapping[str, File], local: Mapping[str, Path]) -> int:
    """Copy the files that the folder lacks, and return their bytes. Raise ArtifactError if one is not what is said of it."""
    missing = [name for name, file in files.items() if place.size(name) != file.bytes]
    for name, actual in zip(missing, sha256s([local[name] for name in missing]), strict=True):
        if actual != (stated := files[name].sha256):
            raise ArtifactError(local[name], f"is damaged: its sha256 is {actual}, its manifest says {stated}")
    for name in progress(missing, desc="backup", unit="file"):
        place.put(local[name], name)
    return sum(files[name].bytes for name in missing)


def _chosen(place: Place, at_sequence: int | None, work: Path) -> tuple[Record, StoredVersion, Lineage]:
    """Return the backup and the version to restore, and the lineage of the newest backup, whose history has all of it."""
    numbers = records.numbers(place)
    if not numbers:
        raise CommandError(f"{place.shown}: is missing, or holds no backup that has ended")
    if at_sequence is None:
        _refuse_damaged_newest(place, numbers[-1], work)
    readable = records.newest_first(place, work)
    newest = next(readable, None)
    if newest is None:
        raise CommandError(f"{place.shown}: none of its records is as it was written, so no backup can be restored")
    sequence = newest.sequence if at_sequence is None else at_sequence
    if sequence > newest.sequence:
        which = "newest backup" if newest.number == numbers[-1] else "newest backup that can be read"
        raise CommandError(f"{place.shown}: its {which} ends with entry {newest.sequence} of the journal")
    earliest = newest.sequence
    for record in chain([newest], readable):
        # Of a history that the newest backup does not go on with, entries of these numbers are others.
        versions = [
            each for each in record.versions if newest.lineage.has(record.lineage.history, each.journal_sequence)
        ]
        earliest = min([earliest, *(each.journal_sequence for each in versions)])
        if newest.lineage.has(record.lineage.history, sequence) and (version := record.version_at(sequence)):
            return record, version, newest.lineage
    raise CommandError(
        f"{place.shown}: no backup has the gallery as it was at entry {at_sequence}: its oldest goes back to {earliest}, "
        "and between two backups an older version may have been removed"
    )


def _refuse_damaged_newest(place: Place, number: int, work: Path) -> None:
    """Raise ArtifactError if the newest backup's record is damaged: an earlier one is older than what was asked for."""
    try:
        records.read(place, number, work)
    except records.DamagedRecordError as error:
        older = next(records.newest_first(place, work), None)
        if older is None:
            remedy = "no other backup is there that can be read"
        else:
            remedy = f"`--at-sequence {older.sequence}` restores the newest one that can be read, backup {older.number}; {error.remedy}"
        raise ArtifactError(error.path, error.reason, remedy) from error


def _restore(place: Place, record: Record, version: StoredVersion, upto: int, *, draft: Path, work: Path) -> Backup:
    home, after = version_path(draft, version.name), version.journal_sequence
    needed = [each for each in record.segments if each.segment.last > after and each.segment.after < upto]
    for name, file in progress(version.files.items(), total=len(version.files), desc="restore", unit="file"):
        _get(place, file, _inside(home, name, place), f"version {version.name}: {name}")
    for each in needed:
        _get(place, each.file, work / each.file.name, f"journal {each.segment.after + 1} to {each.segment.last}")
    make_current(draft, version.name)
    with _named(place, record, draft, work):
        made = IndexVersion.open(draft).manifest
        if needed:
            parts = [(work / each.file.name, each.segment) for each in needed]
            meta = Meta(made.model, made.dimension, after)
            journal_segment.join(parts, meta, upto, draft / journal_file.FILE)
        elif after:
            journal_mark.create(draft / journal_file.FILE, journal_mark.Mark(after, after))
        last = max(check_journal(draft), after)
    files = [*version.files.values(), *(each.file for each in needed)]
    return Backup(version.name, last, sum(file.bytes for file in files))


def _get(place: Place, file: File, local: Path, what: str) -> None:
    place.get(file.name, local)
    if (actual := sha256(local)) != file.sha256:
        raise ArtifactError(place.path(file.name), f"is damaged: its sha256 is {actual} ({what})", _COPIED_AGAIN)


def _inside(home: Path, name: str, place: Place) -> Path:
    path = home / name
    if not Path(os.path.normpath(path)).is_relative_to(home):
        raise CommandError(f"{place.shown}: a record lists {name!r}, which is outside of its version")
    return path


@contextmanager
def _named(place: Place, record: Record, draft: Path, work: Path) -> Iterator[None]:
    """Tell what is wrong with the copies of the backup that they are of."""
    try:
        yield
    except ArtifactError as error:
        reason = str(error).replace(f"{work}/", f"{place.shown}/").replace(f"{draft}/", "").replace(str(draft), "")
        raise ArtifactError(place.path(record.name), reason, _AN_EARLIER_ONE) from error


@contextmanager
def _way_out(index_dir: Path, version: str) -> Iterator[None]:
    """Say of a file of the version that is damaged or gone what an operator can do."""
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(Path(error.filename), "is missing", way_out(index_dir, version)) from error
    except ArtifactError as error:
        raise ArtifactError(error.path, error.reason, way_out(index_dir, version)) from error


@contextmanager
def _work(index_dir: Path) -> Iterator[Path]:
    """Yield a folder for what is made on the way, and remove those that backups of the index have left which were killed.

    Call it inside the only backup's lock: then none of them is in use.
    """
    prefix = f"vmmr-backup-{hashlib.sha256(os.fsencode(index_dir.resolve())).hexdigest()[:16]}-"
    for leftover in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix) as work:
        yield Path(work)


@contextmanager
def _only_backup(index_dir: Path) -> Iterator[None]:
    """Hold the lock of the only backup of the index. It is on a folder: nothing is written, so a read-only index can be backed up."""
    descriptor = os.open(index_dir / "versions", os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not locked(descriptor):
            raise BackupRunningError(index_dir, "another process is backing it up")
        yield
    finally:
        os.close(descriptor)
