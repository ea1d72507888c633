"""Makes faiss indexes, offline: from a factory string, trained once, and copied for every shard.

Shards that are copies of one trained index share its centroids and codebooks, so together they answer as one index would.
"""

import re
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.adapters import FlatAdapter, IvfAdapter, SearchOptions, adapter_of
from search_svc.engine.faiss_layers import METRICS, innermost, is_hnsw, transforms
from search_svc.index.version import Metric, SearchParams
from svckit.cli import CommandError

_BY_ITSELF = "\x01"
"""The value of `quantizer_trains_alone` of an IVF index whose coarse quantizer is not trained by k-means on the lists."""
_NEAREST_LIST = SearchOptions(SearchParams(nprobe=1))
_FAISS_PLACE = re.compile(r"^Error in .*? at \S+:\d+: (Error: '.*?' failed(: |$))?", re.DOTALL)


def create(factory: str, dimension: int, metric: Metric) -> Any:
    """Return an empty, untrained faiss index. Raises CommandError if the factory string makes none that we can serve."""
    try:
        index = faiss.index_factory(dimension, factory, METRICS[metric])
    except RuntimeError as error:
        raise CommandError(
            f"faiss makes no index of {factory!r} ({metric}, {dimension}-d): {_reason(error)}"
        ) from error
    if index.metric_type != METRICS[metric]:
        raise CommandError(f"faiss does not support the metric {metric} for {factory!r}")
    kind = type(innermost(index)).__name__
    if kind.startswith("IndexIDMap"):
        raise CommandError(f"{factory!r} keeps ids of its own: leave IDMap out, ids are row numbers here")
    if isinstance(innermost(index), faiss.IndexIVFAdditiveQuantizerFastScan):
        raise CommandError(f"{factory!r} can't be told how many lists to visit: leave out the fs")
    if kind.startswith("IndexNSG"):
        raise CommandError(f"{factory!r} takes all embeddings at once: use HNSW, which takes them in parts")
    return index


def lists(index: Any) -> int | None:
    """Return how many inverted lists the index has; None if it is not an IVF index."""
    ivf = faiss.try_extract_index_ivf(index)
    return None if ivf is None else int(ivf.nlist)


def centroids(index: Any) -> int:
    """Return how many centroids k-means has to find for the inverted lists; fewer than lists if these are products."""
    ivf = faiss.try_extract_index_ivf(index)
    return 0 if ivf is None or ivf.quantizer_trains_alone == _BY_ITSELF else int(ivf.nlist)


def least_training_points(index: Any) -> int:
    """Return the fewest embeddings that can train the index: each centroid needs a point, and so does each direction that PCA keeps."""
    return 0 if index.is_trained else max(centroids(index), codewords(index), _directions(index), 1)


def codewords(index: Any) -> int:
    """Return how many words each code of a product quantizer is chosen from; 0 if the index has none."""
    inner = innermost(index)
    storage = faiss.downcast_index(inner.storage) if is_hnsw(index) else inner
    return int(storage.pq.ksub) if hasattr(storage, "pq") else 0


def _directions(index: Any) -> int:
    steps = transforms(index) if isinstance(index, faiss.IndexPreTransform) else []
    return max((step.d_out for step in steps if isinstance(step, faiss.PCAMatrix)), default=0)


def train(index: Any, sample: NDArray[np.float32]) -> None:
    """Train the index on a sample, (n, dimension). Raises CommandError if faiss cannot."""
    try:
        index.train(sample)
    except RuntimeError as error:
        raise CommandError(f"faiss cannot train the index on {len(sample)} embeddings: {_reason(error)}") from error


def read_trained(path: Path) -> Any:
    """Return the index of a shard file without its vectors: only what was trained, centroids and codebooks, is left."""
    index = read(path)
    index.reset()
    return index


def reserve(index: Any, rows: int) -> None:
    """Make room for so many rows, if all codes are in one piece: growing it bit by bit would take up to twice the memory."""
    inner = innermost(index)
    storage = faiss.downcast_index(inner.storage) if is_hnsw(index) else inner
    if isinstance(storage, faiss.IndexFlatCodes):
        held = storage.codes.size()
        storage.codes.resize(rows * storage.code_size)
        storage.codes.resize(held)


def add(index: Any, vectors: NDArray[np.float32]) -> None:
    """Add vectors, (n, dimension). A vector goes into the same inverted list whatever else is added with it.

    faiss would choose lists with BLAS, which rounds by the shape of what is added: photos that are about as near to two
    lists (2 in 20,000 random ones) would get into one or the other, depending on how many shards there are.
    """
    if isinstance(index, faiss.IndexPreTransform):
        for step in transforms(index):
            vectors = step.apply(vectors)
        add(faiss.downcast_index(index.index), vectors)
        index.ntotal = index.index.ntotal
    elif isinstance(index, faiss.IndexRefine):
        add(faiss.downcast_index(index.base_index), vectors)
        index.refine_index.add(vectors)
        index.ntotal = index.base_index.ntotal
    elif isinstance(adapter := adapter_of(index), IvfAdapter) and isinstance(adapter.quantizer, FlatAdapter):
        lists = np.ascontiguousarray(adapter.choose_lists(vectors, _NEAREST_LIST).ids[:, 0])
        index.add_core(len(vectors), faiss.swig_ptr(np.ascontiguousarray(vectors)), None, faiss.swig_ptr(lists))
    else:
        index.add(vectors)


def read(path: Path) -> Any:
    """Read a whole index into memory, to add to it."""
    return faiss.read_index(str(path))


def write(index: Any, path: Path) -> None:
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise CommandError(f"{path}: {_reason(error)}") from error


def _reason(error: RuntimeError) -> str:
    """Return the message of a faiss error without the place in its sources, and the line there that failed, unless that is all."""
    return _FAISS_PLACE.sub("", str(error)).strip() or str(error)
