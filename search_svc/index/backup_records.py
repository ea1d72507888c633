"""What a folder of backups holds: a record of each backup, and the files that the records name, each copied once.

```
BACKUPS/
    backups/000017.json     the record of a backup, written last: a backup that did not end has none
    files/<sha256>          a file of a version, or a segment of the journal, by what is in it
```

A record is a JSON object with a seal (`svckit.artifact.sealed`), and names everything that its backup needs.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_svc.index.backup_place import Place
from search_svc.index.journal_segment import Segment
from search_svc.index.lineage import Lineage
from svckit.artifact import ArtifactError, sealed
from svckit.cli import CommandError

OLDER = "manifest.json"
"""In the folder of one backup, as earlier releases made them."""
_RECORD = re.compile(r"(\d{6,})\.json")
_LEFT = re.compile(r"files/[0-9a-f]{64}(\.part)?|backups/\d{6,}\.json\.part")
"""Of a file that is in no backup: it was, or was to be."""
_SHA256, _VERSION = re.compile("[0-9a-f]{64}"), re.compile("[0-9]{6,}")
_KIND, _FORMAT = "backups", 1

_log = logging.getLogger(__name__)


class DamagedRecordError(ArtifactError):
    """A record is not as it was written, so nobody knows what its backup needs: the others are whole without it."""


class LaterFormatError(Exception):
    """A record was written by a later vmmr-search."""


@dataclass(frozen=True)
class File:
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        """Raise ValueError if its name could be that of a file elsewhere: records come from where others may write."""
        _check_name(_SHA256, self.sha256)

    @property
    def name(self) -> str:
        """Where it is in the folder of backups."""
        return f"files/{self.sha256}"


@dataclass(frozen=True)
class StoredVersion:
    """A version that was copied."""

    name: str
    journal_sequence: int
    """Of the last journal entry that it holds."""
    files: Mapping[str, File]
    """By their names in the version's directory."""

    def __post_init__(self) -> None:
        """Raise ValueError if its name could be that of a folder elsewhere."""
        _check_name(_VERSION, self.name)


@dataclass(frozen=True)
class StoredSegment:
    """A segment of the journal that was copied."""

    segment: Segment
    file: File


@dataclass(frozen=True)
class Record:
    """One backup."""

    lineage: Lineage
    number: int
    created: str
    sequence: int
    """Of the last write that is in it."""
    current: str
    """The version that was current."""
    versions: Sequence[StoredVersion]
    """The current one, and those that were copied before and were still on the disk; oldest first."""
    segments: Sequence[StoredSegment]
    """The journal, in order and without a gap."""

    @property
    def name(self) -> str:
        return _name(self.number)

    @property
    def files(self) -> dict[str, File]:
        """All files that it needs, by where they are in the folder of backups."""
        every = [file for version in self.versions for file in version.files.values()]
        return {file.name: file for file in (*every, *(stored.file for stored in self.segments))}

    def version_at(self, sequence: int) -> StoredVersion | None:
        """Return the version to restore the gallery as it was at a sequence number; None if this backup does not have it."""
        if sequence > self.sequence:
            return None
        current_first = sorted(self.versions, key=lambda version: (version.name == self.current, int(version.name)))
        fitting = [version for version in current_first if version.journal_sequence <= sequence]
        return fitting[-1] if fitting else None

    def write(self, place: Place) -> None:
        fields = {**asdict(self), "kind": _KIND, "format": _FORMAT}
        place.write(self.name, f"{json.dumps(sealed(fields), indent=1)}\n".encode())


def numbers(place: Place) -> list[int]:
    """Return the numbers of the backups, oldest first."""
    return sorted(int(found[1]) for name in place.names("backups") if (found := _RECORD.fullmatch(name)))


def read(place: Place, number: int, work: Path) -> Record:
    """Return the record of a backup, by way of a file in `work`. Raise DamagedRecordError, naming it, if it is damaged.

    Raise ArtifactError if it is of a later format.
    """
    name = _name(number)
    place.get(name, work / "record.json")
    try:
        return _record(json.loads((work / "record.json").read_bytes()))
    except LaterFormatError as error:
        raise ArtifactError(place.path(name), str(error), "use the one that wrote it") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"is not as it was written: {error}"
        raise DamagedRecordError(
            place.path(name), reason, "remove this file: the other backups do not need it"
        ) from error


def newest_first(place: Place, work: Path) -> Iterator[Record]:
    """Yield the records of the backups, from the newest on. One that is damaged is passed over, with a warning that names it."""
    for number in reversed(numbers(place)):
        try:
            yield read(place, number, work)
        except DamagedRecordError as error:
            _log.warning("a backup is passed over: %s", error)


def remove_old(place: Place, keep: int, work: Path) -> None:
    """Remove all backups of the newest one's history but the newest `keep`, and the files that no backup needs: also those of backups that were killed.

    Backups of other histories stay: of an index that this one was restored of, they may be all that there is.
    """
    try:
        there = {number: read(place, number, work) for number in numbers(place)}
    except DamagedRecordError as error:
        _log.warning("no old backup is removed, for what one of them needs is not known: %s", error)
        return
    goes_on = there[max(there)].lineage.history
    old = [number for number, record in there.items() if record.lineage.history == goes_on][:-keep]
    needed = {name for number, record in there.items() if number not in old for name in record.files}
    for number in old:  # first: whoever is killed here leaves files that nobody needs, not a backup that lacks some
        place.remove(_name(number))
    for folder in ("files", "backups"):
        for name in (f"{folder}/{each}" for each in place.names(folder)):
            if name not in needed and _LEFT.fullmatch(name):
                place.remove(name)


def refuse_foreign(place: Place) -> None:
    """Raise CommandError if there is something that is no folder of backups."""
    there = place.names()
    if OLDER in there:
        raise CommandError(
            f"{place.shown} holds a backup of an earlier release, which can be restored: name a new folder"
        )
    if there and not {"backups", "files"} & set(there):
        raise CommandError(f"{place.shown} is there already, and no folder of backups: name a new or empty one")


def _name(number: int) -> str:
    return f"backups/{number:06d}.json"


def _check_name(pattern: re.Pattern[str], name: str) -> None:
    if not pattern.fullmatch(name):
        raise ValueError(f"it names {name!r}")


def _record(fields: Mapping[str, Any]) -> Record:
    """Raise ValueError, or whatever Python raises over what is no record, if it is not what `Record.write` wrote."""
    if fields["kind"] != _KIND or sealed(fields) != fields:
        raise ValueError("its seal does not fit")
    if fields["format"] != _FORMAT:
        raise LaterFormatError(f"has format {fields['format']}, and this vmmr-search reads {_FORMAT}")
    versions = [
        StoredVersion(
            each["name"], each["journal_sequence"], {name: File(**file) for name, file in each["files"].items()}
        )
        for each in fields["versions"]
    ]
    segments = [StoredSegment(Segment(**each["segment"]), File(**each["file"])) for each in fields["segments"]]
    plain = {name: fields[name] for name in ("number", "created", "sequence", "current")}
    return Record(**plain, lineage=Lineage.of(fields["lineage"]), versions=versions, segments=segments)
