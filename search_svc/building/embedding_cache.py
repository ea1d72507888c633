"""The embeddings that a migration has made, kept so that a migration that was stopped need not make them again.

The cache is one SQLite file, `migration.db`, in the directory of the new index. It is no part of the index, and can be
deleted. Each row has a checksum: a bit that flipped on the disk must not get into the new index.
"""

import hashlib
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search_svc.index.journal_errors import translate_sqlite_errors
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

FILE = "migration.db"
_SETUP = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value NOT NULL, checksum INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remade (photo BLOB PRIMARY KEY, embedding BLOB NOT NULL, checksum INTEGER NOT NULL DEFAULT 0);
"""


def photo_key(item_id: str, uri: str, embedding: bytes) -> bytes:
    """Return the key of a photo of the old gallery. A photo that replaced another has another key, even with the same id and uri."""
    parts = (item_id.encode(), uri.encode(), embedding)
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()


class EmbeddingCache:
    """Photo key -> float16 embedding, all of one model. What was added is on the disk once `add` has returned."""

    def __init__(self, directory: Path, model: str, dimension: int) -> None:
        """Open the cache, or make it. Raises CommandError if it is of another model, ArtifactError if it cannot be read."""
        self.path = directory / FILE
        self.model = model
        self.dimension = dimension
        with translate_sqlite_errors(self.path, _damaged):
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(_SETUP)
            self._add_checksums()
            if not self._meta("model"):
                self._set_meta("model", model)
        if (before := self._meta("model")) != model:
            self.close()
            raise CommandError(
                f"{self.path}: is of the model {before}, the embedder serves {model}: name another index"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def _add_checksums(self) -> None:
        """Add checksums to a file that an earlier vmmr made without them."""
        for table, columns in (("meta", "name, value"), ("remade", "photo, embedding")):
            if any(name == "checksum" for _, name, *_ in self._connection.execute(f"PRAGMA table_info({table})")):
                continue
            self._connection.create_function("checksum", 2, _checksum)
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0")
            self._connection.execute(f"UPDATE {table} SET checksum = checksum({columns})")  # noqa: S608
            self._connection.execute("COMMIT")

    def has(self, photo: bytes) -> bool:
        with translate_sqlite_errors(self.path, _damaged):
            return bool(self._connection.execute("SELECT 1 FROM remade WHERE photo = ?", (photo,)).fetchone())

    def add(self, embeddings: Mapping[bytes, NDArray[np.float32]]) -> None:
        made = [(photo, vector.astype("<f2").tobytes()) for photo, vector in embeddings.items()]
        rows = [(photo, embedding, _checksum(photo, embedding)) for photo, embedding in made]
        with translate_sqlite_errors(self.path, _damaged):
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO remade VALUES (?, ?, ?)", rows)
            self._connection.execute("COMMIT")

    def get(self, photo: bytes) -> NDArray[np.float16]:
        """Return an embedding that was added, (dimension,). Raises ArtifactError if it is not what was added."""
        with translate_sqlite_errors(self.path, _damaged):
            row = self._connection.execute(
                "SELECT photo, embedding, checksum FROM remade WHERE photo = ?", (photo,)
            ).fetchone()
        if row is None or row[0] != photo or _checksum(photo, row[1]) != row[2]:
            raise _damaged(self.path, "an embedding is not what was written")
        return np.frombuffer(row[1], "<f2")

    def rows(self, photos: Sequence[bytes]) -> "_CachedRows":
        """Return the embeddings of photos, in their order, (photos, dimension); each is read when it is asked for."""
        return _CachedRows(self, photos)

    @property
    def last_build(self) -> str:
        """The job of the version that was built last, as `record_build` got it; empty if none was."""
        return self._meta("built")

    def record_build(self, job: str) -> None:
        """Remember that a version of this job was built."""
        with translate_sqlite_errors(self.path, _damaged):
            self._set_meta("built", job)

    def _set_meta(self, name: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, value, _checksum(name, value)))

    def _meta(self, name: str) -> str:
        with translate_sqlite_errors(self.path, _damaged):
            rows = self._connection.execute("SELECT name, value, checksum FROM meta").fetchall()
        if any(_checksum(name, value) != stated for name, value, stated in rows):
            raise _damaged(self.path, "`meta` is not what was written")
        return str({name: value for name, value, _ in rows}.get(name, ""))


def _checksum(key: object, value: object) -> int:
    """Return the CRC-32 of a row. It depends on the types of the values, which SQLite may change, too."""
    return zlib.crc32(repr((key, value)).encode("utf-8", "surrogatepass"))


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(path, f"is damaged ({what}): delete it, and the photos are embedded anew")


@dataclass(frozen=True)
class _CachedRows:
    """Embeddings as a build reads them: see `build_source.Rows`."""

    cache: EmbeddingCache
    photos: Sequence[bytes]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.photos), self.cache.dimension)

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.float16]:
        found = np.empty((len(rows), self.cache.dimension), np.float16)
        for place, row in enumerate(rows.tolist()):
            found[place] = self.cache.get(self.photos[row])
        return found
