"""The index data directory: which version is current, and how the next one appears.

```
INDEX/
    CURRENT             the name of the version to serve, for example `000001`
    versions/000001/    an index version, never changed
    build.lock          locked by the process that is writing the next one
```
"""

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from svckit.artifact import ArtifactError, atomic_directory, atomic_write

_VERSION = re.compile(r"[0-9]{6,}")


def version_path(index_dir: Path, version: str) -> Path:
    return index_dir / "versions" / version


def current(index_dir: Path) -> str:
    """The version to serve. Raises ArtifactError if `index_dir` is not an index data directory."""
    path = index_dir / "CURRENT"
    try:
        version = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise ArtifactError(path, "missing: no index was built here; `vmmr-search build` makes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(path, str(error)) from error
    if not _VERSION.fullmatch(version):
        raise ArtifactError(path, f"not the name of a version: {version[:40]!r}")
    return version


@contextmanager
def new_version(index_dir: Path) -> Iterator[tuple[str, Path]]:
    """The next version's name, and a directory to write it into.

    When the block ends the directory appears in `versions/`, whole, and then CURRENT moves to it; each by one rename. So
    what CURRENT names is whole, whenever the process is killed. Raises ArtifactError if another is building here, or
    if `index_dir` holds something else than an index.
    """
    versions = index_dir / "versions"
    _refuse_foreign(index_dir)
    versions.mkdir(parents=True, exist_ok=True)
    with _only_builder(index_dir):
        for leftover in versions.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        version = _next(versions)
        with atomic_directory(version_path(index_dir, version)) as draft:
            yield version, draft
        atomic_write(index_dir / "CURRENT", f"{version}\n".encode())


def _refuse_foreign(index_dir: Path) -> None:
    if index_dir.is_dir() and any(index_dir.iterdir()) and not (index_dir / "versions").is_dir():
        raise ArtifactError(index_dir, "holds something else than an index: name an index, or a new or empty folder")


@contextmanager
def _only_builder(index_dir: Path) -> Iterator[None]:
    with (index_dir / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(index_dir, "another process is building an index here") from None
        yield


def _next(versions: Path) -> str:
    """One more than the highest there is."""
    numbers = [int(path.name) for path in versions.iterdir() if _VERSION.fullmatch(path.name)]
    return f"{max(numbers, default=0) + 1:06d}"
