"""What of the model's and the gallery's folders, and of the disk under them, is well."""

import errno
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from doctor.findings import Finding, fail, not_checked, ok, warn
from embedder_svc.network import bundle
from embedder_svc.network.bundle import BundleInfo
from embedder_svc.network.choice import choose_bundle
from search_svc.index.index_dir import current, version_path
from search_svc.index.journal_check import verify
from search_svc.index.retention import check_whole
from search_svc.index.version import IndexVersion
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from svckit.config import ConfigError

_SLOW_FLUSH_S = 0.05
_FLUSHES = 15
_LEAST_ROOM = 100 * 2**20
"""Bytes without which even the journal soon has no room."""
_ERRORS = (ArtifactError, ConfigError, CommandError, OSError)


def not_a_folder(check: str, path: Path, flag: str) -> Finding | None:
    """Return that what should be a folder is something else; None if it is one, or is not there."""
    if not path.exists() or path.is_dir():
        return None
    return fail(check, f"{path} is a file, and a folder is wanted", f"name the folder that it is in by {flag}")


def model(path: Path) -> tuple[Finding, BundleInfo | None]:
    """Verify a model bundle, or the one that would be chosen from a folder of bundles."""
    if other := not_a_folder("model", path, "--model"):
        return other, None
    try:
        info = bundle.read(choose_bundle(path, "auto", gpu=False))
    except _ERRORS as error:
        return fail("model", str(error), "name a bundle by --model; `vmmr-embedder export` makes one"), None
    return ok("model", f"{info.name}, {info.precision}, {info.fingerprint[:12]}, every byte as it was written"), info


def gallery(path: Path) -> tuple[Finding, IndexVersion | None]:
    """Verify the current version of an index, and its journal, and that together they are the gallery."""
    if other := not_a_folder("gallery", path, "--index"):
        return other, None
    try:
        version = IndexVersion.open(path)
        sequence = max(verify(path), version.manifest.journal_sequence)
        check_whole(path, version.manifest)
    except _ERRORS as error:
        return fail("gallery", str(error), _way_out(path)), None
    made = version.manifest
    text = f"version {made.version}, {made.items} photos of {made.labels} labels, journal to {sequence}, every byte as it was written"
    return ok("gallery", text), version


def fit(info: BundleInfo | None, version: IndexVersion | None) -> Finding:
    """Compare the fingerprint that the gallery was made with to the model's."""
    if info is None or version is None:
        return not_checked("model and gallery", "one of them cannot be read")
    if info.fingerprint != version.manifest.model:
        text = f"the gallery is of the model {version.manifest.model[:12]}, the model is {info.fingerprint[:12]}: every query would be refused"
        return fail(
            "model and gallery",
            text,
            "serve the gallery's model, or make a gallery for this one: `vmmr-search migrate`",
        )
    return ok("model and gallery", "of one fingerprint")


def room(path: Path) -> Finding:
    """Say whether the disk has room for the next version of the gallery."""
    free = shutil.disk_usage(path).free
    try:
        home = version_path(path, current(path))
        needed = 2 * sum(each.stat().st_size for each in home.rglob("*"))
    except (ArtifactError, OSError) as error:
        return not_checked(
            "disk space", f"{free / 2**30:.1f} GiB free, and the size of the gallery is not known: {error}"
        )
    text = f"{free / 2**30:.1f} GiB free, a compaction and its way there take {needed / 2**30:.1f}"
    if free < _LEAST_ROOM:
        return fail("disk space", text, "make room: writes are refused when the disk is full")
    if free < needed:
        return warn("disk space", text, "make room: the next compaction will fail, and queries grow slower meanwhile")
    return ok("disk space", text)


def writing(path: Path) -> Finding:
    """Say whether this user can write to the index."""
    for folder in (path, path / "versions"):
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
                pass
        except FileNotFoundError:
            return not_checked("permissions", f"there is no folder {folder}")
        except OSError as error:
            text = f"{folder}: {error.strerror}: photos cannot be added, and versions not built"
            return fail("permissions", text, "make it writable for the server's user, or serve with --read-only")
    closed = [each for each in sorted(path.glob("journal.*")) if not os.access(each, os.R_OK | os.W_OK)]
    if closed:
        return fail("permissions", f"{closed[0]} can't be written by this user", "give it to the server's user (chown)")
    return ok("permissions", f"{path} can be written")


def flushing(path: Path) -> Finding:
    """Time how long the disk takes to keep a page, which every write waits for, twice."""
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-") as file:
            median = statistics.median(_flush_s(file.fileno()) for _ in range(_FLUSHES))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOENT):
            return not_checked("disk speed", f"{path} cannot be written: {error.strerror}")
        raise
    text = f"{1e3 * median:.1f} ms to flush a page"
    if median > _SLOW_FLUSH_S:
        return warn("disk speed", f"{text}, and each write waits for two", "put the index on a local SSD")
    return ok("disk speed", text)


def _way_out(path: Path) -> str:
    if (path / "CURRENT").exists() or (path / "versions").exists():
        return "docs/live.md, When the disk fails, says what helps"
    return "name an index by --index; `vmmr-search build` makes one"


def _flush_s(descriptor: int) -> float:
    os.write(descriptor, bytes(4096))
    started = time.perf_counter()
    os.fsync(descriptor)
    return time.perf_counter() - started
