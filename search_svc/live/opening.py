"""Opens versions of one index to be served, and closes each when no view of it is left."""

import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.engine import Engine
from search_svc.index.index_dir import way_out
from search_svc.index.version import IndexVersion
from search_svc.index.version_lease import VersionLease
from search_svc.live.view import Opened
from svckit.artifact import ArtifactError
from svckit.config import ConfigError


class Opener:
    """Opens and closes versions. Thread-safe.

    A version that is open holds a lease (search_svc.index.version_lease), so retention does not remove it from the disk.
    """

    def __init__(self, index_dir: Path, open_engine: Callable[[IndexVersion], Engine], *, max_k: int) -> None:
        """`open_engine` opens what searches a version, for example `LocalEngine.open`."""
        self._index_dir = index_dir
        self._open_engine = open_engine
        self._max_k = max_k
        self._engines: dict[int, Engine] = {}

    def current(self, *, verify: bool = False) -> Opened:
        """Open the version that is current, and return it, ready to be searched.

        Without `verify` its bytes are not read; sizes, and that its files fit each other, are checked all the same. Raises
        ArtifactError, CommandError and DeviceError as IndexVersion and the engine do, and ConfigError if its k is too large.
        """
        lease = VersionLease.current(self._index_dir)
        try:
            version = IndexVersion.open(self._index_dir, lease.path.name, verify=verify)
            self._check(version)
            engine = self._opened(version)
        except BaseException:
            lease.release()
            raise
        opened = Opened(version, engine)
        _ = version.means  # an older version reads all its embeddings for them: now, and not while a caller waits
        self._engines[id(engine)] = engine
        weakref.finalize(opened, self._close_in_background, engine, lease).atexit = False
        return opened

    @property
    def abandoned(self) -> int:
        """Number of searches of shards that took too long, and still run."""
        return sum(engine.abandoned for engine in tuple(self._engines.values()))

    def interrupt(self) -> None:
        """End the searches that callers wait for, with SHUTTING_DOWN, and begin no more."""
        for engine in tuple(self._engines.values()):
            engine.interrupt()

    def close(self) -> None:
        for engine in tuple(self._engines.values()):
            engine.close()

    def _check(self, version: IndexVersion) -> None:
        if self._max_k < version.manifest.k:
            raise ConfigError(
                f"--max-k (VMMR_SEARCH_MAX_K) must be >= {version.manifest.k}, the k of the index, got {self._max_k}"
            )

    def _opened(self, version: IndexVersion) -> Engine:
        """Open the engine. An error names what an operator can do about the version, too."""
        try:
            return self._open_engine(version)
        except ArtifactError as error:
            raise ArtifactError(error.path, error.reason, way_out(self._index_dir, version.path.name)) from error

    def _close_in_background(self, engine: Engine, lease: VersionLease) -> None:
        # This runs in whatever thread drops the last view, maybe the event loop's: closing may wait, and that may not.
        threading.Thread(target=self._close, args=(engine, lease), name="closing", daemon=True).start()

    def _close(self, engine: Engine, lease: VersionLease) -> None:
        engine.close()
        lease.release()
        if not engine.abandoned:
            del self._engines[id(engine)]


def warm(opened: Opened) -> None:
    """Search once, so that no caller waits for what faiss sets up on first use."""
    opened.engine.search(warm_up_queries(opened.version), opened.version.manifest.k)


def warm_up_queries(version: IndexVersion) -> NDArray[np.float32]:
    """Return the query that a version is warmed up with, its first photo. (1, dimension)"""
    return version.embeddings[:1].astype(np.float32)
