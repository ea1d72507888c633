"""Files and directories that appear whole or not at all, with a manifest by which damage is found.

The offline steps are joined by such directories. A reader never sees half of one: it is written beside its final
place, flushed to the disk, and moved there by one rename.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import tokenize
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from svckit import strict_json
from svckit.cores import cores

FORMAT = 1
"""The highest `format` of a manifest that is read; one that states none has format 1. What older programs would misread gets a higher one."""

NPY_ERRORS = (OSError, ValueError, SyntaxError, tokenize.TokenError)
"""numpy.load raises one of these over a damaged .npy file, because it reads the header as Python."""


class ArtifactError(Exception):
    """A file or directory is not as it should be; the message names it, says why, and what its owner can do about it."""

    def __init__(self, path: Path, reason: str, remedy: str = "") -> None:
        super().__init__(f"{path}: {reason}{remedy and f': {remedy}'}")
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[Self], tuple[Path, str, str]]:
        """Another process may have raised it."""
        return type(self), (self.path, self.reason, self.remedy)


@contextmanager
def atomic_directory(path: Path, settle: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a directory to fill, which becomes `path` when the block ends; if the block raises, nothing is left.

    `settle` puts it on the disk, if flushing file by file would take too long. A process that is killed leaves a hidden `.NAME.*.tmp`
    beside it, which nothing reads.
    Raise ArtifactError if `path` exists: an artifact is never overwritten.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _sibling(path)
    with _errors_name(path, draft):
        draft.mkdir()
        try:
            yield draft
            (settle or flush)(draft)
            refuse_existing(path)
            draft.rename(path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    flush_one(path.parent)


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file, replacing what was there, so that a reader sees either the old content or the new."""
    draft = _sibling(path)
    with _errors_name(path, draft):
        try:
            draft.write_bytes(content)
            flush_one(draft)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    flush_one(path.parent)


def publish(draft: Path, path: Path) -> None:
    """Move a directory that is on the disk to its place; once this returns it stays there, even if the power fails.

    Raise ArtifactError if `path` exists.
    """
    refuse_existing(path)
    move_directory(draft, path)


def move_directory(source: Path, target: Path) -> None:
    """Give a directory another name, under which a reader sees all of it or nothing; once this returns it stays there.

    A directory that came with a container's image cannot be renamed (overlayfs): a copy of its files gets the name, and the original
    is removed. Killed amid that, there are both, and the original may be a part of itself.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_directory(target) as copy:
            for name in file_names(source):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, copy / name)
        shutil.rmtree(source)
    flush_one(target.parent)


def remove_directory(path: Path) -> None:
    """Remove a directory so that a reader sees all of it or nothing; killed, it may leave a hidden `.NAME.*.tmp` beside it.

    A directory that came with a container's image cannot be renamed (overlayfs), and goes file by file: a reader may see a part of
    it, and a part may be left.
    """
    doomed = _sibling(path)
    try:
        path.rename(doomed)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.rmtree(path)
    shutil.rmtree(doomed, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raise ArtifactError if `path` exists."""
    if path.exists():
        raise ArtifactError(path, "already exists: delete it, or write to another name")


def write_manifest(directory: Path, fields: Mapping[str, Any], filename: str = "manifest.json") -> None:
    """Write the directory's manifest: `fields`, the size and sha256 of every file in it, and the seal (see `sealed`)."""
    names = [name for name in file_names(directory) if name != filename]
    paths = [directory / name for name in names]
    files = {
        name: {"sha256": digest, "bytes": path.stat().st_size}
        for name, path, digest in zip(names, paths, sha256s(paths), strict=True)
    }
    text = json.dumps(sealed({**fields, "files": files}), indent=2, allow_nan=False)
    atomic_write(directory / filename, f"{text}\n".encode())


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with a last field `sha256` over all others: over their JSON in ASCII, keys sorted, without spaces."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, "sha256": hashlib.sha256(canonical.encode()).hexdigest()}


def read_manifest(
    directory: Path, filename: str = "manifest.json", *, verify: bool = True, always: Collection[str] = ()
) -> dict[str, Any]:
    """Return the manifest's content, after checking its seal, its format and that every file it lists is there in its size.

    With `verify`, check the files' sha256 too, which reads them all; those named in `always` are checked in any case. Raise
    ArtifactError naming the file that is wrong.
    """
    manifest = read_sealed(directory / filename)
    files = {directory / name: entry for name, entry in _listed_files(directory / filename, manifest).items()}
    for path, entry in files.items():
        check_size(path, entry["bytes"])
    read = [path for path in files if verify or path.name in always]
    for path, actual in zip(read, sha256s(read), strict=True):
        _check_sha256(path, actual, files[path]["sha256"])
    return manifest


def read_sealed(path: Path) -> dict[str, Any]:
    """Return a manifest's content, after checking its seal and its format. The files that it lists are not looked at.

    Raise ArtifactError naming the manifest.
    """
    manifest = read_object(path)
    _check_seal(path, manifest)
    _check_format(path, manifest)
    return manifest


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raise ArtifactError if there is none."""
    try:
        content = strict_json.loads(path.read_bytes())
    except OSError as error:
        raise ArtifactError(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise ArtifactError(path, f"is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(path, "is not a JSON object")
    return content


def sha256(path: Path) -> str:
    """Return the file's sha256, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256s(paths: Sequence[Path]) -> list[str]:
    """Return the sha256 of each file. Several are read at once, because hashing one keeps one core busy."""
    with ThreadPoolExecutor(max(1, min(len(paths), cores()))) as pool:
        return list(pool.map(sha256, paths))


def sha256_of(parts: Iterable[bytes]) -> str:
    """Return the sha256 of bytes that come in parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Put a file, or a directory and all that is in it, on the disk: it is there then even if the power fails."""
    for inner in path.rglob("*") if path.is_dir() else ():
        flush_one(inner)
    flush_one(path)


def flush_one(path: Path) -> None:
    """Put a file, or a directory's list of files, on the disk. Files in a directory are not put there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_names(directory: Path) -> list[str]:
    """Return the paths of all files below a directory, relative to it, sorted."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def _check_seal(path: Path, manifest: dict[str, Any]) -> None:
    stated, actual = manifest.get("sha256", "nothing"), sealed(manifest)["sha256"]
    if stated != actual:
        raise ArtifactError(path, f"is damaged or was edited: `sha256` says {stated}, its content has {actual}")


def _check_format(path: Path, manifest: dict[str, Any]) -> None:
    if (stated := manifest.get("format", FORMAT)) not in range(1, FORMAT + 1):
        raise ArtifactError(path, f"has format {stated}; this vmmr reads {FORMAT}: a later one wrote it, and reads it")


def _listed_files(path: Path, manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_is_entry(entry) for entry in files.values()):
        raise ArtifactError(path, "`files` does not give the sha256 and bytes of every file")
    return files


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("bytes"), int)


def check_size(path: Path, stated: int) -> None:
    """Raise ArtifactError unless the file is there, and has the bytes that its manifest states."""
    if not path.is_file():
        raise ArtifactError(path, "is missing")
    if (size := path.stat().st_size) != stated:
        raise ArtifactError(path, f"has {size} bytes, its manifest says {stated}")


def _check_sha256(path: Path, actual: str, stated: str) -> None:
    if actual != stated:
        raise ArtifactError(path, f"is damaged: its sha256 is {actual}, its manifest says {stated}")


@contextmanager
def _errors_name(path: Path, draft: Path) -> Iterator[None]:
    """Make errors about the draft, or a file in it, name `path` instead: its user does not know the draft's name."""
    try:
        yield
    except OSError as error:
        name = str(error.filename)
        if not name.startswith(str(draft)):
            raise
        raise OSError(error.errno, error.strerror, f"{path}{name.removeprefix(str(draft))}") from error


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
