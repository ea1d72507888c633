"""Versions of one index, opened to be served; closed when no view of them is left."""

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from search_svc.engine.gpu import Gpu
from search_svc.engine.local import LocalEngine
from search_svc.index.index_dir import way_out
from search_svc.index.version import IndexVersion
from search_svc.index.version_lease import Holding
from search_svc.live.view import Opened
from svckit.artifact import ArtifactError
from svckit.config import ConfigError


class Opener:
    """Thread-safe. What it has opened stays where it is on the disk until it is closed (search_svc.index.version_lease)."""

    def __init__(self, index_dir: Path, *, gpus: Sequence[Gpu], max_k: int) -> None:
        self._index_dir = index_dir
        self._gpus = gpus
        self._max_k = max_k
        self._engines: dict[int, LocalEngine] = {}

    def current(self, *, verify: bool = False) -> Opened:
        """The version that is current, ready to be searched.

        Without `verify` its bytes are not read: sizes, and that files fit each other, are checked all the same. Raises
        ArtifactError, CommandError and DeviceError as IndexVersion and LocalEngine do, and ConfigError if its k is too large.
        """
        holding = Holding.current(self._index_dir)
        try:
            version = IndexVersion.open(self._index_dir, holding.path.name, verify=verify)
            self._check(version)
            engine = self._searching(version)
        except BaseException:
            holding.release()
            raise
        opened = Opened(version, engine)
        self._engines[id(engine)] = engine
        weakref.finalize(opened, self._part_with, engine, holding).atexit = False
        return opened

    @property
    def abandoned(self) -> int:
        """Searches of shards that took too long, and still run."""
        return sum(engine.abandoned for engine in tuple(self._engines.values()))

    def interrupt(self) -> None:
        """Ends the searches that somebody waits for, with SHUTTING_DOWN; no more are begun."""
        for engine in tuple(self._engines.values()):
            engine.interrupt()

    def close(self) -> None:
        for engine in tuple(self._engines.values()):
            engine.close()

    def _check(self, version: IndexVersion) -> None:
        if self._max_k < version.manifest.k:
            raise ConfigError(
                f"--max-k (SEARCH_MAX_K) must be >= {version.manifest.k}, the k of the index, got {self._max_k}"
            )

    def _searching(self, version: IndexVersion) -> LocalEngine:
        try:
            return LocalEngine.open(version, self._gpus)
        except ArtifactError as error:
            raise ArtifactError(error.path, error.reason, way_out(self._index_dir, version.path.name)) from error

    def _part_with(self, engine: LocalEngine, holding: Holding) -> None:
        """Called wherever the last view was let go of, where nothing may wait."""
        threading.Thread(target=self._close, args=(engine, holding), name="closing", daemon=True).start()

    def _close(self, engine: LocalEngine, holding: Holding) -> None:
        engine.close()
        holding.release()
        if not engine.abandoned:
            del self._engines[id(engine)]


def warm(opened: Opened) -> None:
    """Searches once, so that no caller waits for what faiss sets up on first use."""
    manifest = opened.version.manifest
    opened.engine.search(opened.version.embeddings[:1].astype(np.float32), manifest.k)
