"""The index data directory: read which version is current, and add the next one.

```
INDEX/
    CURRENT             the name of the version to serve, and its CRC-32: `000001 4e413570`
    versions/000001/    an index version, never changed
    versions/.draft/    the next one in the making, left there by a build that was stopped; nothing reads it but the next build
    ID                  which index this is, of one that was backed up: `lineage` says more
    build.lock          locked by the process that is writing the next one, or changes which there are
```
"""

import json
import os
import re
import shutil
import stat
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from search_svc.index.locks import locked
from svckit import strict_json
from svckit.artifact import ArtifactError, atomic_write, flush, move_directory, publish, remove_directory

_VERSION = re.compile(r"[0-9]{6,}")
_MOVING = "moving"
"""A draft's file: the name under which it is moved to its place."""
_OF_FILE_SYSTEMS = {"lost+found"}
"""What is where a disk is mounted, however empty it is."""


EXIT_BUILD_RUNNING = 3
"""Exit code of `vmmr-search compact` where another process is building."""


class BuildRunningError(ArtifactError):
    """Raised where another process is building or removing versions."""


def version_path(index_dir: Path, version: str) -> Path:
    return index_dir / "versions" / version


def current(index_dir: Path) -> str:
    """Return the name of the version to serve.

    Raise ArtifactError, with the way out, if `index_dir` is not an index data directory, or CURRENT is not what was written. One
    that has no checksum, by an earlier release or by hand, is believed.
    """
    path = index_dir / "CURRENT"
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        if version_names(index_dir):
            raise ArtifactError(path, "missing, and there are versions", _name_one(index_dir)) from None
        raise ArtifactError(path, f"missing: no index was built here; {_index_of(index_dir)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(path, str(error), _name_one(index_dir)) from error
    version, _, checksum = text.strip().partition(" ")
    if not _VERSION.fullmatch(version) or checksum not in ("", _checksum(version)):
        raise ArtifactError(path, f"not the name of a version: {text.strip()[:40]!r}", _name_one(index_dir))
    return version


def way_out(index_dir: Path, version: str) -> str:
    """Return what an operator can do if a version is damaged or gone."""
    with suppress(ArtifactError):
        if (served := current(index_dir)) != version:
            lost = f"if {version} is lost for good, remove {version_path(index_dir, version)}"
            return f"version {served} is the current one; {lost}; `vmmr-search restore` makes an index of a backup"
    others = [name for name in version_names(index_dir) if name != version]
    if others:
        return f"`vmmr-search rollback {index_dir} {others[-1]}` serves another version, and `vmmr-search restore` a backup"
    return "there is no other version: `vmmr-search restore` makes an index of a backup"


def version_names(index_dir: Path) -> list[str]:
    """Return the names of the versions on the disk, oldest first."""
    versions = index_dir / "versions"
    names = [path.name for path in versions.iterdir() if _VERSION.fullmatch(path.name)] if versions.is_dir() else []
    return sorted(names, key=int)


def make_current(index_dir: Path, version: str) -> None:
    """Make a version the current one, by one rename. Call it inside `only_builder`."""
    path = index_dir / "CURRENT"
    if path.is_dir():
        raise ArtifactError(path, "is a folder, and must be a file", "remove it")
    atomic_write(path, f"{version} {_checksum(version)}\n".encode())


def _index_of(folder: Path) -> str:
    """Return what to do about a folder that is no index: one of a version, or of versions, is in one."""
    for above in (folder.resolve().parent, folder.resolve().parent.parent):
        if (above / "CURRENT").is_file():
            return f"it is a part of the index {above}: name that"
    return "`vmmr-search build` makes one"


def _checksum(version: str) -> str:
    return f"{zlib.crc32(version.encode()):08x}"


def _name_one(index_dir: Path) -> str:
    """Return what an operator can do if CURRENT does not tell which version is to be served."""
    names = version_names(index_dir)
    return (
        f"`vmmr-search rollback {index_dir} {names[-1] if names else 'VERSION'}` names the newest version that is there"
    )


def begun(index_dir: Path) -> Mapping[str, str]:
    """Return the job of a version that was begun and not ended; empty if there is none."""
    return _begun(index_dir / "versions" / ".draft") or {}


@dataclass(frozen=True)
class Draft:
    """A version in the making."""

    version: str
    files: Path
    """The directory that becomes the version."""
    work: Path
    """A directory for what is needed on the way there."""
    discarded: tuple[str, ...]
    """The fields in which a draft that was found here, and thrown away, differed from the job; empty if none was."""


@contextmanager
def new_version(index_dir: Path, job: Mapping[str, str]) -> Iterator[Draft]:
    """Yield a draft to write the next version into.

    If an earlier block with the same job did not end, yield its draft, as it was left. When the block ends the directory
    appears in `versions/`, whole, and then CURRENT moves to it; each by one rename. So what CURRENT names is whole, whenever
    the process is killed. Raise ArtifactError if another is building here, or if `index_dir` holds something else than an
    index.
    """
    versions = index_dir / "versions"
    _refuse_foreign(index_dir)
    versions.mkdir(parents=True, exist_ok=True)
    with only_builder(index_dir):
        place = versions / ".draft"
        for leftover in (*versions.glob(".*.tmp"), *place.glob(".*.tmp")):
            shutil.rmtree(leftover, ignore_errors=True)
        discarded = _claim(index_dir, place, job)
        draft = Draft(_next(versions), place / "version", place / "work", discarded)
        yield draft
        flush(draft.files)
        atomic_write(place / _MOVING, f"{draft.version}\n".encode())
        publish(draft.files, version_path(index_dir, draft.version))
        make_current(index_dir, draft.version)
        shutil.rmtree(place)


def _claim(index_dir: Path, place: Path, job: Mapping[str, str]) -> tuple[str, ...]:
    """Make the draft one for the job. If it was for another, return the fields in which the jobs differ."""
    if os.path.lexists(place) and not _is_draft(place):
        print(f"warning: {place} is damaged, and is begun anew", file=sys.stderr)
    begun = _begun(place)
    different = tuple(name for name in job if begun and begun.get(name) != job[name])
    if begun == job:
        _take_back(index_dir, place)
    if begun is None or different or not (place / "version").is_dir():
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # it is a file, or a link
            place.unlink()
        (place / "version").mkdir(parents=True)
        (place / "work").mkdir()
        atomic_write(place / "job.json", f"{json.dumps(dict(job))}\n".encode())
    return different


def _take_back(index_dir: Path, place: Path) -> None:
    """Make a draft again of a version that was moved to its place by a build that was killed before CURRENT was.

    It was never served, and how it is searched may be another matter now.
    """
    moving, files = place / _MOVING, place / "version"
    if not moving.exists():
        return
    version = moving.read_text(encoding="ascii").strip()
    moved = version_path(index_dir, version)
    if not moved.exists():
        return
    # Of the first version of all there is no CURRENT. One that cannot be read may name this very version.
    if (index_dir / "CURRENT").exists() and current(index_dir) == version:
        return
    if files.exists():  # killed within `move_directory`: which is a part of the other, nobody knows
        remove_directory(files)
        remove_directory(moved)
    else:
        move_directory(moved, files)


def _begun(place: Path) -> dict[str, str] | None:
    """Return the job of a draft, or None if there is none that can be gone on with.

    Raise ArtifactError if it cannot be read: the draft may be as good as built.
    """
    if not _is_draft(place):
        return None
    try:
        job: dict[str, str] = strict_json.loads((place / "job.json").read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(place / "job.json", error.strerror or str(error)) from error
    except ValueError:
        return None
    return job


def _is_draft(place: Path) -> bool:
    """Return whether a draft is there in which no link, and no folder in a file's place, has a build fail or write elsewhere.

    Folders of others, as a file system or a NAS makes them, are in nobody's way. Raise ArtifactError if it cannot be looked at.
    """
    folders = {place, place / "version", place / "work"}
    if not os.path.lexists(place):
        return False
    for path in (place, *place.rglob("*")):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue  # another process has just removed it
        except OSError as error:
            raise ArtifactError(path, error.strerror or str(error)) from error
        if not (stat.S_ISDIR(mode) if path in folders else _is_in_nobody_s_way(path, mode)):
            return False
    return True


def _is_in_nobody_s_way(path: Path, mode: int) -> bool:
    is_a_file_s_name = path.suffix or path.name == _MOVING
    return stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not is_a_file_s_name)


def _refuse_foreign(index_dir: Path) -> None:
    there = {inner.name for inner in index_dir.iterdir()} if index_dir.is_dir() else set()
    if there - _OF_FILE_SYSTEMS and "versions" not in there:
        raise ArtifactError(index_dir, "holds something else than an index: name an index, or a new or empty folder")


@contextmanager
def only_builder(index_dir: Path) -> Iterator[None]:
    """Hold the lock of the only builder during the block.

    Raise BuildRunningError if another process holds it, ArtifactError if its file cannot be written.
    """
    path = index_dir / "build.lock"
    try:
        lock = path.open("w")
    except OSError as error:
        remedy = "whoever builds locks it: see that it is a file, and that this user may write it"
        raise ArtifactError(path, error.strerror or str(error), remedy) from error
    with lock:
        if not locked(lock.fileno()):
            raise BuildRunningError(index_dir, "another process is building an index here")
        yield


def _next(versions: Path) -> str:
    """Return the name of the next version: one more than the highest there is."""
    names = version_names(versions.parent)
    return f"{int(names[-1] if names else 0) + 1:06d}"
