"""Indexes of one gallery that are built on trial, and the folder in which they lie while they are measured."""

import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search_svc.building.build_source import BuildSource, copy_embeddings
from search_svc.building.shard_files import write_shards
from search_svc.building.spec import IndexSpec
from search_svc.engine.local import LocalEngine
from search_svc.index.items import Items, write_items
from search_svc.index.version import (
    EMBEDDINGS_FILE,
    ITEMS_FILE,
    IndexVersion,
    Metric,
    SearchParams,
    ShardInfo,
    VersionManifest,
)
from search_svc.select.grid import Setting
from svckit.artifact import atomic_write

Index = tuple[str, Metric]
"""The factory string and the metric."""

_BUILT_FILE = "built.json"


@dataclass(frozen=True)
class Built:
    """The facts about an index that was built."""

    build_s: float
    shards: tuple[ShardInfo, ...]
    bytes: int


def index_of(setting: Setting) -> Index:
    return setting.factory, setting.metric


@dataclass(frozen=True)
class TrialIndexes:
    """A folder of indexes of one gallery, each built when it is first opened."""

    path: Path
    embeddings: NDArray[np.float16]
    """(N, dimension) The embeddings of the gallery, memory-mapped."""
    items: Items
    shards: int

    @classmethod
    def create(cls, path: Path, gallery: BuildSource, shards: int) -> Self:
        """Copy the gallery into the folder. Raises CommandError if an embedding cannot be kept as float16."""
        path.mkdir(parents=True, exist_ok=True)
        (path / "copying").mkdir(exist_ok=True)
        copy_embeddings(path / EMBEDDINGS_FILE, gallery, path / "copying")
        write_items(path / ITEMS_FILE, gallery.item_ids, gallery.labels, gallery.uris)
        embeddings = np.load(path / EMBEDDINGS_FILE, mmap_mode="r")
        return cls(path, embeddings, Items.open(path / ITEMS_FILE), shards)

    @contextmanager
    def opened(self, index: Index) -> Iterator[tuple[LocalEngine, Built]]:
        """Open an index as it would be served; build it first if it is not there. Raises CommandError if faiss cannot."""
        built = self._found(index) or self._build(index)
        with LocalEngine.open(self._version(index, built)) as engine:
            yield engine, built

    def keep(self, indexes: Collection[Index]) -> None:
        """Delete all indexes but these."""
        for file in self.path.glob(f"*/{_BUILT_FILE}"):
            if file.parent not in map(self._place, indexes):
                shutil.rmtree(file.parent)

    def clear(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _place(self, index: Index) -> Path:
        return self.path / " ".join(index)

    def _found(self, index: Index) -> Built | None:
        file = self._place(index) / _BUILT_FILE
        if not file.exists():
            return None
        fields = json.loads(file.read_bytes())
        return Built(**fields | {"shards": tuple(ShardInfo(**shard) for shard in fields["shards"])})

    def _build(self, index: Index) -> Built:
        place = self._place(index)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        factory, metric = index
        started = time.perf_counter()
        with _without_faiss_warnings():
            shards = write_shards(place, self.embeddings, IndexSpec(factory, metric, self.shards))
        build_s = time.perf_counter() - started
        built = Built(build_s, shards, sum((place / shard.file).stat().st_size for shard in shards))
        atomic_write(place / _BUILT_FILE, json.dumps(dataclasses.asdict(built)).encode())
        return built

    def _version(self, index: Index, built: Built) -> IndexVersion:
        factory, metric = index
        manifest = VersionManifest(
            version="000000",
            model="select",
            model_name="select",
            dimension=self.embeddings.shape[1],
            items=len(self.items),
            labels=len(self.items.labels),
            factory=factory,
            metric=metric,
            shards=built.shards,
            search=SearchParams(),
            k=1,
            temperature=1.0,
            seed=0,
            train_sample=0,
            created=datetime.now(UTC),
        )
        return IndexVersion(self._place(index), manifest, self.embeddings, self.items)


@contextmanager
def _without_faiss_warnings() -> Iterator[None]:
    """Silence stderr. faiss writes there, past Python, that there are few photos, for each part of each code: a thousand times."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
