"""One shard: a part of the gallery, in a faiss index opened read-only."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.asking import IndexAdapter, Options, asking, nearest
from search_svc.engine.faiss_layers import METRICS, is_graph, is_lists, layers, parameters
from search_svc.engine.gpu import Gpu, on_gpu
from search_svc.engine.merge import NONE, Hits, dropping, empty, top_k
from search_svc.engine.scanning import Scan, length_of_longest
from search_svc.index.version import IndexVersion, Metric, SearchParams, ShardInfo
from svckit.artifact import ArtifactError

# The type hints that faiss ships know neither all classes nor the keyword arguments that its Python layer adds.
_faiss: Any = faiss


@dataclass(frozen=True)
class Shard:
    """Some rows of the gallery. Thread-safe: one search may be abandoned, and go on, while the next begins."""

    asked: IndexAdapter
    """A faiss index, whose n-th vector is the n-th of `rows`."""
    embeddings: NDArray[np.float16]
    """(items, dimension): of the whole gallery."""
    metric: Metric
    rows: range
    """Ids of the gallery, ascending: so ties are resolved alike in any number of shards."""
    longest: float | None
    """Length of the longest embedding; None if it is not known."""
    filters: bool
    """Whether this kind of index can leave rows out of a search."""

    @classmethod
    def open(cls, path: Path, info: ShardInfo, version: IndexVersion, gpu: Gpu | None = None) -> Self:
        """Maps the file into memory, and copies it to the GPU if there is one to be used.

        Raises ArtifactError if it is not what the version's manifest says, and DeviceError if the GPU can't hold it.
        """
        manifest = version.manifest
        index = _read(path)
        expected = (len(info.rows), manifest.dimension, METRICS[manifest.metric])
        found = (index.ntotal, index.d, index.metric_type)
        if found != expected:
            described = "{} vectors of dimension {}, faiss metric {}".format
            raise ArtifactError(path, f"holds {described(*found)}; the manifest says {described(*expected)}")
        asked = asking(index, info.longest)
        if gpu:
            asked = on_gpu(asked, gpu, path)
        return cls(asked, version.embeddings, manifest.metric, info.rows, info.longest, filters=_filters(index))

    @property
    def tunable(self) -> frozenset[str]:
        """The fields of SearchParams that this kind of index has."""
        if is_lists(self.asked.index):
            return frozenset({"nprobe"})
        return frozenset({"ef_search"}) if is_graph(self.asked.index) else frozenset()

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        params: SearchParams,
        rows: NDArray[np.bool_] | None = None,
        without: NDArray[np.int64] = NONE,
    ) -> Hits:
        """The k best hits that the index finds, among the gallery's `rows` (a mask over all of them) or among all.

        An index that cannot leave rows out is not asked then: `rows` are scanned. Any can do `without` some, by id, ascending.
        """
        if rows is not None and not self.filters:
            return self.scan(queries, k, rows, without)
        selector = None if rows is None else _selector(rows[_slice(self.rows)])
        hits = nearest(self.asked, queries, k, Options(params, selector), self._own(without))
        ids = self.rows.start + self.rows.step * hits.ids
        return Hits(hits.scores, np.where(hits.ids < 0, -1, ids))

    def scan(
        self,
        queries: NDArray[np.float32],
        k: int,
        rows: NDArray[np.bool_] | None = None,
        without: NDArray[np.int64] = NONE,
    ) -> Hits:
        """The k best hits by comparing with every embedding of the shard, or every one of `rows`."""
        compared: range | NDArray[np.int64] = self.rows
        if rows is not None:
            compared = np.array(self.rows)[rows[_slice(self.rows)]]
        if not len(compared):
            return empty(len(queries))
        scan = Scan(self.embeddings, compared, self.metric, self._longest)
        return top_k(dropping(scan.fetch, without), queries, k, len(compared))

    def _own(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in the shard of those ids, ascending, that are in it."""
        low, high = np.searchsorted(ids, (self.rows.start, self.rows.stop))
        places, rest = np.divmod(ids[low:high] - self.rows.start, self.rows.step)
        own: NDArray[np.int64] = places[rest == 0]
        return own

    @cached_property
    def _longest(self) -> float:
        return length_of_longest(self.embeddings, self.rows) if self.longest is None else self.longest


def use_one_core() -> None:
    """For the thread that searches a shard.

    OpenMP's thread count is a setting of the calling thread. Shards are searched in parallel, so faiss must not be so
    within one: the two together were measured eleven times slower.
    """
    faiss.omp_set_num_threads(1)


def _read(path: Path) -> Any:
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise ArtifactError(path, f"faiss cannot read it: {error}") from error


def _filters(index: Any) -> bool:
    """Whether a search takes a selector: faiss tells when it is tried."""
    options = parameters(layers(index), SearchParams(), _selector(np.zeros(index.ntotal, np.bool_)))
    try:
        index.search(np.zeros((1, index.d), np.float32), 1, params=options)
    except RuntimeError:
        return False
    return True


def _selector(rows: NDArray[np.bool_]) -> Any:
    return _faiss.IDSelectorBitmap(np.packbits(rows, bitorder="little"))


def _slice(rows: range) -> slice:
    return slice(rows.start, rows.stop, rows.step)
