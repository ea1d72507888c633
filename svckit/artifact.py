"""Files and directories that appear whole or not at all, with a manifest that can tell when one was damaged.

The offline steps are joined by such directories. A reader never sees half of one: it is written beside its final
place, flushed to the disk, and moved there by one rename.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class ArtifactError(Exception):
    """A file or directory is not what it should be; names it and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `path` when the block ends; if the block raises, nothing is left.

    A process that is killed leaves a hidden `.NAME.*.tmp` beside it, which nothing reads.
    Raises ArtifactError if `path` exists: an artifact is never overwritten.
    """
    _refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _sibling(path)
    draft.mkdir()
    try:
        yield draft
        _flush_tree(draft)
        _refuse_existing(path)
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _flush(path.parent)


def atomic_write(path: Path, content: bytes) -> None:
    """Writes a file, replacing what was there, so that a reader sees the old content or the new."""
    draft = _sibling(path)
    try:
        draft.write_bytes(content)
        _flush(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def write_manifest(directory: Path, fields: Mapping[str, Any], filename: str = "manifest.json") -> None:
    """Writes `fields`, and the size and sha256 of every file in the directory, as the directory's manifest."""
    files = {
        name: {"sha256": sha256(directory / name), "bytes": (directory / name).stat().st_size}
        for name in _file_names(directory)
        if name != filename
    }
    text = json.dumps({**fields, "files": files}, indent=2, allow_nan=False)
    atomic_write(directory / filename, f"{text}\n".encode())


def read_manifest(directory: Path, filename: str = "manifest.json", *, verify: bool = True) -> dict[str, Any]:
    """The manifest's content, once every file it lists is found to be there and of the right size.

    `verify` also compares their sha256, which reads them all. Raises ArtifactError naming the bad file.
    """
    manifest = _read_object(directory / filename)
    for name, entry in _listed_files(directory / filename, manifest).items():
        _check(directory / name, entry, verify=verify)
    return manifest


def sha256(path: Path) -> str:
    """The file's sha256, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtifactError(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise ArtifactError(path, f"is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(path, "is not a JSON object")
    return content


def _listed_files(path: Path, manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_is_entry(entry) for entry in files.values()):
        raise ArtifactError(path, "`files` does not give the sha256 and bytes of every file")
    return files


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("bytes"), int)


def _check(path: Path, entry: dict[str, Any], *, verify: bool) -> None:
    if not path.is_file():
        raise ArtifactError(path, "is missing")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ArtifactError(path, f"has {size} bytes, its manifest says {entry['bytes']}")
    if verify and (actual := sha256(path)) != entry["sha256"]:
        raise ArtifactError(path, f"is damaged: its sha256 is {actual}, its manifest says {entry['sha256']}")


def _file_names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ArtifactError(path, "already exists")


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _flush_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        _flush(path)
    _flush(directory)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
