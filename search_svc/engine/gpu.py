"""Shards on GPUs.

A GPU holds a copy of an index that is mapped into memory. It finds the candidates of a flat index, and scans the lists of
an IVF index. What a GPU can't do (leave rows out, find thousands of neighbours, visit thousands of lists) is done on the CPU
with the mapped index.
"""

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.engine.adapters import FlatAdapter, IndexAdapter, IvfAdapter, SearchOptions, TransformedAdapter
from search_svc.engine.merge import Fetched
from svckit.cli import CommandError
from svckit.errors import Reason, ServiceError
from svckit.extras import install

# The CPU wheel lacks what is used here; the type hints of the GPU wheel do, too.
_faiss: Any = faiss

_log = logging.getLogger(__name__)

T = TypeVar("T")

DEVICES = ("cpu", "cuda")

_IVF_KINDS = ("IndexIVFFlat", "IndexIVFScalarQuantizer", "IndexIVFPQ")
"""The kinds of IVF index that faiss can copy to a GPU, and that we serve there."""

_MOST = 2048
"""Neighbours of a query, and lists to visit, that a search on a GPU can have at most."""

_SCRATCH_BYTES = 512 << 20
"""Memory that a search may use beside the shards, on each GPU. faiss would take 1.5 GiB."""

_ROUNDING = 2.0**-23
"""The relative error of each addition on a GPU: tensor cores cut off rather than round, in an order of their own."""


class DeviceError(CommandError):
    """The device that the operator asked for can't be used."""


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine. Its indexes are not thread-safe, and share memory: it does one thing at a time."""

    number: int
    resources: Any
    lock: threading.Lock

    def copy(self, index: Any) -> Any:
        """Return a copy of the index on this GPU. Raises RuntimeError, in faiss' words, if the GPU can't hold it."""
        options = _faiss.GpuClonerOptions()
        options.useFloat16 = isinstance(index, faiss.IndexFlat)
        options.allowCpuCoarseQuantizer = True  # lists are chosen on the CPU
        with self.lock:
            return _faiss.index_cpu_to_gpu(self.resources, self.number, index, options)

    def run(self, search: Callable[[], T]) -> T:
        """Return what the search returns. Raises ServiceError, INTERNAL, if the GPU fails, as it may for lack of memory."""
        with self.lock:
            try:
                return search()
            except RuntimeError as error:
                _log.exception("GPU %d failed", self.number)
                raise ServiceError(Reason.INTERNAL, f"GPU {self.number} failed") from error


def all_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs of this machine. Raises DeviceError if there is none, or if this faiss can't use GPUs."""
    if not hasattr(_faiss, "StandardGpuResources"):
        raise DeviceError(f"device cuda: this faiss knows no GPUs. Install gpu, not cpu: {install('gpu')}")
    # Asked for all GPUs where there is none, faiss would make an empty index.
    if not (count := int(_faiss.get_num_gpus())):
        raise DeviceError("device cuda: faiss finds no GPU. Is there one, with its driver?")
    return tuple(_gpu(number) for number in range(count))


def on_gpu(adapter: IndexAdapter, gpu: Gpu, path: Path, *, own: bool = True) -> IndexAdapter:
    """Return an adapter that searches a copy of the index on the GPU.

    `own` says that the index holds the embeddings of the gallery as they are: then float16 loses nothing of them.
    Raises DeviceError, naming the file `path`, if the GPU can't hold the index.
    """
    if isinstance(adapter, TransformedAdapter):
        return replace(adapter, inner=on_gpu(adapter.inner, gpu, path, own=False))
    # Compare the type itself: faiss would copy an IndexIVFPQR as if it were the IndexIVFPQ that it is derived from.
    kind = type(adapter.index).__name__
    try:
        if isinstance(adapter, FlatAdapter):
            lost = 0.0 if own else _lost_in_float16(adapter)
            return FlatOnGpu(adapter, gpu, gpu.copy(adapter.index), lost)
        if isinstance(adapter, IvfAdapter) and kind in _IVF_KINDS:
            return IvfOnGpu(adapter, gpu, gpu.copy(adapter.index))
    except RuntimeError as error:
        raise DeviceError(f"device cuda: {path}: GPU {gpu.number} can't hold it: {error}") from error
    raise DeviceError(
        f"device cuda: {path}: a GPU can't hold {kind}. It can hold Flat, and IVF with Flat, SQ or PQ; PCA and OPQ may "
        "be in front"
    )


@dataclass(frozen=True)
class FlatOnGpu:
    """A flat index whose candidates a GPU finds. They are scored as on the CPU, to the same bits."""

    cpu: FlatAdapter
    gpu: Gpu
    copy: Any
    """The index on the GPU, in float16."""
    lost: float
    """An upper bound of the length by which the copy of a vector differs from it."""
    batching = True

    @property
    def index(self) -> Any:
        return self.cpu.index

    def fetch(self, queries: NDArray[np.float32], k: int, options: SearchOptions) -> Fetched:
        # The GPU would round the queries itself. Done here, we know by how much, and which are too large for float16.
        with np.errstate(over="ignore"):
            rounded = queries.astype(np.float16).astype(np.float32)
        if k > _MOST or options.selector is not None or not np.isfinite(rounded).all():
            return self.cpu.fetch(queries, k, options)
        candidates, rows = self.gpu.run(lambda: self.copy.search(rounded, k))
        return self.cpu.scored(queries, candidates, rows, self.cpu.slack(queries) + self._slack(queries, rounded))

    def _slack(self, queries: NDArray[np.float32], rounded: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (Q,) how far a score of the GPU may be from the true one.

        Two things add up: rounding of the query and of the vector to float16, and rounding while products are added.
        """
        lost, size = _lengths(queries.astype(np.float64) - rounded), _lengths(rounded)
        adding, longest = _ROUNDING * float(self.index.d + 2), self.cpu.longest + self.lost
        if self.index.metric_type == faiss.METRIC_INNER_PRODUCT:
            return lost * longest + self.lost * size + adding * size * longest
        sizes = size + lost + longest
        return 2 * (lost + self.lost) * sizes + adding * sizes**2


@dataclass(frozen=True)
class IvfOnGpu:
    """An IVF index whose lists are chosen on the CPU, and scanned on a GPU, whose scores differ in their last digits."""

    cpu: IvfAdapter
    gpu: Gpu
    copy: Any
    batching = True

    @property
    def index(self) -> Any:
        return self.cpu.index

    def fetch(self, queries: NDArray[np.float32], k: int, options: SearchOptions) -> Fetched:
        lists = self.cpu.choose_lists(queries, options)
        count = lists.ids.shape[1]
        if k > _MOST or count > _MOST or options.selector is not None or (lists.ids < 0).any():
            return self.cpu.fetch(queries, k, options)
        # faiss does not check on a GPU that it was given as many lists as nprobe says.
        params = _faiss.SearchParametersIVF(nprobe=count)
        return self.gpu.run(lambda: self.cpu.scan(self.copy, queries, k, lists, params))


def _gpu(number: int) -> Gpu:
    resources = _faiss.StandardGpuResources()
    resources.setTempMemory(_SCRATCH_BYTES)
    return Gpu(number, resources, threading.Lock())


def _lost_in_float16(adapter: FlatAdapter) -> float:
    """Return an upper bound of the length by which a vector differs from itself in float16.

    Each number loses half a unit in its last place at most, or half of the smallest float16 if it is smaller than these.
    """
    if adapter.longest > float(np.finfo(np.float16).max):
        raise RuntimeError("its vectors are too long for float16")
    return adapter.longest * 2.0**-11 + math.sqrt(adapter.index.d) * 2.0**-25


def _lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return lengths
