"""Embeddings that were made anew, kept as they are made: what a migration that was stopped has done, it need not do again.

One SQLite file, `migration.db`, in the directory of the new index. It is no part of the index, and can be deleted.
"""

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search_svc.index.journal_file import told
from svckit.cli import CommandError

FILE = "migration.db"
_SETUP = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remade (photo BLOB PRIMARY KEY, embedding BLOB NOT NULL);
"""


def photo_key(item_id: str, uri: str, embedding: bytes) -> bytes:
    """Of a photo as the old gallery has it: one that replaced another is another, even under the same id and uri."""
    parts = (item_id.encode(), uri.encode(), embedding)
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()


class Remade:
    """By photo, float16 embeddings of one model. What was added is on the disk once `add` has returned."""

    def __init__(self, directory: Path, model: str, dimension: int) -> None:
        """Raises CommandError if those that are there are of another model, ArtifactError if they cannot be read."""
        self.path = directory / FILE
        self.model = model
        self.dimension = dimension
        with told(self.path):
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(_SETUP)
            self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('model', ?)", (model,))
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

    def has(self, photo: bytes) -> bool:
        with told(self.path):
            return bool(self._connection.execute("SELECT 1 FROM remade WHERE photo = ?", (photo,)).fetchone())

    def add(self, embeddings: Mapping[bytes, NDArray[np.float32]]) -> None:
        rows = [(photo, vector.astype("<f2").tobytes()) for photo, vector in embeddings.items()]
        with told(self.path):
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO remade VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")

    def get(self, photo: bytes) -> NDArray[np.float16]:
        """(dimension,): of one that was added."""
        with told(self.path):
            row = self._connection.execute("SELECT embedding FROM remade WHERE photo = ?", (photo,)).fetchone()
        return np.frombuffer(row[0], "<f2")

    def rows(self, photos: Sequence[bytes]) -> "_Rows":
        """Those of photos, in their order; read when they are asked for."""
        return _Rows(self, photos)

    @property
    def built(self) -> str:
        """What `build_is_of` was told last; empty if nothing."""
        return self._meta("built")

    def build_is_of(self, gallery: str) -> None:
        """Remembers the gallery of which a version was built."""
        with told(self.path):
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('built', ?)", (gallery,))

    def _meta(self, name: str) -> str:
        with told(self.path):
            row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""


@dataclass(frozen=True)
class _Rows:
    """A `gallery.Rows`."""

    remade: Remade
    photos: Sequence[bytes]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.photos), self.remade.dimension)

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.float16]:
        found = np.empty((len(rows), self.remade.dimension), np.float16)
        for place, row in enumerate(rows.tolist()):
            found[place] = self.remade.get(self.photos[row])
        return found
