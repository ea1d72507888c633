"""One shard: a part of the gallery, in a faiss index opened read-only."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.adapters import IndexAdapter, SearchOptions, adapter_of, nearest
from search_svc.engine.asking import Question
from search_svc.engine.faiss_layers import METRICS, is_hnsw, is_ivf, layers, parameters
from search_svc.engine.gpu import Gpu, on_gpu
from search_svc.engine.merge import Hits, dropping, empty, top_k
from search_svc.engine.scanning import Scan, length_of_longest
from search_svc.index.version import Metric, SearchParams, ShardInfo, VersionManifest
from svckit.artifact import ArtifactError

# The type hints that faiss ships know neither all classes nor the keyword arguments that its Python layer adds.
_faiss: Any = faiss


@dataclass(frozen=True)
class Shard:
    """Some rows of the gallery. Thread-safe: a search that was abandoned may still run while the next begins."""

    adapter: IndexAdapter
    """The faiss index, whose n-th vector is the n-th of `rows`."""
    embeddings: NDArray[np.float16]
    """(items, dimension): the embeddings of the whole gallery."""
    metric: Metric
    rows: range
    """The gallery rows of this shard, ascending, so that ties are resolved alike in any number of shards."""
    longest: float | None
    """Length of the longest embedding of the shard; None if it is not known."""
    filters: bool
    """Whether this kind of index can leave rows out of a search."""

    @classmethod
    def open(
        cls,
        path: Path,
        info: ShardInfo,
        manifest: VersionManifest,
        embeddings: NDArray[np.float16],
        gpu: Gpu | None = None,
    ) -> Self:
        """Map the file into memory, and copy the index to the GPU if one is given. `embeddings` are those of the gallery.

        Raises ArtifactError if the file is not what the version's manifest says, DeviceError if the GPU can't hold it.
        """
        index = _read(path)
        expected = (len(info.rows), manifest.dimension, METRICS[manifest.metric])
        found = (index.ntotal, index.d, index.metric_type)
        if found != expected:
            described = "{} vectors of dimension {}, faiss metric {}".format
            raise ArtifactError(path, f"holds {described(*found)}; the manifest says {described(*expected)}")
        adapter = adapter_of(index, info.longest)
        if gpu:
            adapter = on_gpu(adapter, gpu, path)
        return cls(adapter, embeddings, manifest.metric, info.rows, info.longest, filters=_filters(index))

    @property
    def tunable(self) -> frozenset[str]:
        """The fields of SearchParams that this kind of index has."""
        if is_ivf(self.adapter.index):
            return frozenset({"nprobe"})
        return frozenset({"ef_search"}) if is_hnsw(self.adapter.index) else frozenset()

    def answer(self, question: Question) -> Hits:
        """Return the k best hits, by gallery row, of a question for this shard (see `Question.of`).

        If this kind of index cannot leave rows out of a search, those of the mask are compared with one by one instead.
        """
        if question.params is None or (question.mask is not None and not self.filters):
            return self._compare(question)
        selector = None if question.mask is None else _selector(question.mask)
        options = SearchOptions(question.params, selector)
        hits = nearest(self.adapter, question.queries, question.k, options, question.without)
        return Hits(hits.scores, np.where(hits.ids < 0, -1, self._gallery_rows(hits.ids)))

    def _compare(self, question: Question) -> Hits:
        """Return the k best hits by comparing with every embedding of the shard, or of the mask."""
        compared: range | NDArray[np.int64] = self.rows
        if question.mask is not None:
            compared = np.array(self.rows)[question.mask]
        if not len(compared):
            return empty(len(question.queries))
        scan = Scan(self.embeddings, compared, self.metric, self._longest)
        fetch = dropping(scan.fetch, self._gallery_rows(question.without))
        return top_k(fetch, question.queries, question.k, len(compared))

    def _gallery_rows(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.rows.start + self.rows.step * places

    @cached_property
    def _longest(self) -> float:
        return length_of_longest(self.embeddings, self.rows) if self.longest is None else self.longest


def _read(path: Path) -> Any:
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise ArtifactError(path, f"faiss cannot read it: {error}") from error


def _filters(index: Any) -> bool:
    """Return whether the index can be searched with a selector. faiss tells only when a search is tried."""
    options = parameters(layers(index), SearchParams(), _selector(np.zeros(index.ntotal, np.bool_)))
    try:
        index.search(np.zeros((1, index.d), np.float32), 1, params=options)
    except RuntimeError:
        return False
    return True


def _selector(rows: NDArray[np.bool_]) -> Any:
    return _faiss.IDSelectorBitmap(np.packbits(rows, bitorder="little"))
