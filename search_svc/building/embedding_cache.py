"""The embeddings that a migration has made, kept so that a migration that was stopped need not make them again.

The cache is one SQLite file, `migration.db`, in the directory of the new index. It is no part of the index, and can be
deleted. Each row has a checksum: a bit that flipped on the disk must not get into the new index.
"""

import dataclasses
import hashlib
import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.cuts import Cut, Cuts
from search_svc.index.journal_errors import translate_sqlite_errors
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

FILE = "migration.db"
_SETUP = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value NOT NULL, checksum INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remade (photo BLOB PRIMARY KEY, embedding BLOB NOT NULL, checksum INTEGER NOT NULL DEFAULT 0, cut TEXT);
"""


@dataclass(frozen=True)
class Remade:
    """The new embedding of a photo."""

    embedding: NDArray[np.float32]  # (dimension,)
    cut: Cut | None
    """What of the photo it is of; None if the embedder did not say."""


def photo_key(item_id: str, uri: str, embedding: bytes) -> bytes:
    """Return the key of a photo of the old gallery. A photo that replaced another has another key, even with the same id and uri."""
    parts = (item_id.encode(), uri.encode(), embedding)
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()


class EmbeddingCache:
    """Photo key -> float16 embedding and cut, all of one model. What was added is on the disk once `add` has returned."""

    def __init__(self, directory: Path, model: str, dimension: int) -> None:
        """Open the cache, or make it. Raises CommandError if it is of another model, ArtifactError if it cannot be read."""
        self.path = directory / FILE
        self.model = model
        self.dimension = dimension
        with translate_sqlite_errors(self.path, _damaged):
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(_SETUP)
            self._upgrade()
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

    def _upgrade(self) -> None:
        """Add to a file that an earlier vmmr made what it did not have: checksums, and then cuts."""
        self._add_checksums()
        if not self._has_column("remade", "cut"):
            self._connection.execute("ALTER TABLE remade ADD COLUMN cut TEXT")

    def _add_checksums(self) -> None:
        for table, columns in (("meta", "name, value"), ("remade", "photo, embedding")):
            if self._has_column(table, "checksum"):
                continue
            self._connection.create_function("checksum", 2, _checksum)
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0")
            self._connection.execute(f"UPDATE {table} SET checksum = checksum({columns})")  # noqa: S608
            self._connection.execute("COMMIT")

    def _has_column(self, table: str, column: str) -> bool:
        return any(name == column for _, name, *_ in self._connection.execute(f"PRAGMA table_info({table})"))

    def has(self, photo: bytes) -> bool:
        with translate_sqlite_errors(self.path, _damaged):
            return bool(self._connection.execute("SELECT 1 FROM remade WHERE photo = ?", (photo,)).fetchone())

    def add(self, remade: Mapping[bytes, Remade]) -> None:
        made = [(photo, each.embedding.astype("<f2").tobytes(), _text(each.cut)) for photo, each in remade.items()]
        rows = [(photo, embedding, _row_checksum(photo, embedding, cut), cut) for photo, embedding, cut in made]
        with translate_sqlite_errors(self.path, _damaged):
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT OR REPLACE INTO remade (photo, embedding, checksum, cut) VALUES (?, ?, ?, ?)", rows
            )
            self._connection.execute("COMMIT")

    def get(self, photo: bytes) -> NDArray[np.float16]:
        """Return an embedding that was added, (dimension,). Raises ArtifactError if it is not what was added."""
        return np.frombuffer(self._row(photo)[0], "<f2")

    def cuts(self, photos: Sequence[bytes]) -> Cuts:
        """Return what of each photo was embedded. Raises ArtifactError if it is not what was added."""
        texts = (self._row(photo)[1] for photo in photos)
        return Cuts.of(None if text is None else Cut(*json.loads(text)) for text in texts)

    def _row(self, photo: bytes) -> tuple[bytes, str | None]:
        """Return the embedding and the cut of a photo, as they are in the file."""
        with translate_sqlite_errors(self.path, _damaged):
            row = self._connection.execute(
                "SELECT photo, embedding, checksum, cut FROM remade WHERE photo = ?", (photo,)
            ).fetchone()
        if row is None or row[0] != photo or _row_checksum(photo, row[1], row[3]) != row[2]:
            raise _damaged(self.path, "an embedding is not what was written")
        return row[1], row[3]

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


def _row_checksum(photo: bytes, embedding: object, cut: object) -> int:
    """Return the checksum of a row of `remade`: without a cut, that of a file that an earlier vmmr made."""
    return _checksum(photo, embedding if cut is None else (embedding, cut))


def _text(cut: Cut | None) -> str | None:
    return None if cut is None else json.dumps(dataclasses.astuple(cut))


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
