"""Shards on GPUs: what an index asks a GPU, and what it goes on asking the CPU.

A GPU holds a copy of what is mapped into memory. It finds the candidates of a flat index, and scans the lists of an IVF
index. Whatever it can't do (leave rows out, find thousands of neighbours, visit thousands of lists) the mapped index does.
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

from search_svc.engine.asking import Flat, IndexAdapter, Lists, Options, Transformed
from search_svc.engine.merge import Fetched
from svckit.cli import CommandError
from svckit.errors import Reason, ServiceError
from svckit.extras import install

# The CPU wheel lacks what is used here; the type hints of the GPU wheel do, too.
_faiss: Any = faiss

_log = logging.getLogger(__name__)

T = TypeVar("T")

DEVICES = ("cpu", "cuda")

_LISTS = ("IndexIVFFlat", "IndexIVFScalarQuantizer", "IndexIVFPQ")

_MOST = 2048
"""Neighbours of a query, or lists to visit, that faiss finds on a GPU."""

_SCRATCH_BYTES = 512 << 20
"""Memory that a search may use beside the shards, on each GPU. Faiss would take 1.5 GiB."""

_ROUNDING = 2.0**-23
"""Of each addition on a GPU, whose tensor cores cut off rather than round, and in an order of their own."""


class DeviceError(CommandError):
    """The device that was asked for can't be used."""


@dataclass(frozen=True)
class Gpu:
    """One of the GPUs there are. Its indexes are not thread-safe, and share memory: it does one thing at a time."""

    number: int
    resources: Any
    lock: threading.Lock

    def copy(self, index: Any) -> Any:
        """The index on this GPU. Raises RuntimeError, in faiss' words, if it can't hold it."""
        options = _faiss.GpuClonerOptions()
        options.useFloat16 = isinstance(index, faiss.IndexFlat)
        options.allowCpuCoarseQuantizer = True  # lists are chosen on the CPU
        with self.lock:
            return _faiss.index_cpu_to_gpu(self.resources, self.number, index, options)

    def run(self, search: Callable[[], T]) -> T:
        """Raises ServiceError, INTERNAL, if the GPU fails: what it was asked for costs it memory, too."""
        with self.lock:
            try:
                return search()
            except RuntimeError as error:
                _log.exception("GPU %d failed", self.number)
                raise ServiceError(Reason.INTERNAL, f"GPU {self.number} failed") from error


def all_gpus() -> tuple[Gpu, ...]:
    """Raises CommandError if there is none, or if this faiss knows none."""
    if not hasattr(_faiss, "StandardGpuResources"):
        raise DeviceError(f"device cuda: this faiss knows no GPUs. Install gpu, not cpu: {install('gpu')}")
    # Asked for all GPUs where there is none, faiss would make an empty index.
    if not (count := int(_faiss.get_num_gpus())):
        raise DeviceError("device cuda: faiss finds no GPU. Is there one, with its driver?")
    return tuple(_gpu(number) for number in range(count))


def on_gpu(asked: IndexAdapter, gpu: Gpu, path: Path, *, own: bool = True) -> IndexAdapter:
    """Asks a copy on the GPU. `own`: what is in the index are the gallery's own values, which are float16.

    Raises DeviceError, naming the file, if the GPU can't hold the index.
    """
    if isinstance(asked, Transformed):
        return replace(asked, inner=on_gpu(asked.inner, gpu, path, own=False))
    # By its very type: faiss would copy an IndexIVFPQR as if it were the IndexIVFPQ that it is derived from.
    kind = type(asked.index).__name__
    try:
        if isinstance(asked, Flat):
            lost = 0.0 if own else _lost_in_float16(asked)
            return FlatOnGpu(asked, gpu, gpu.copy(asked.index), lost)
        if isinstance(asked, Lists) and kind in _LISTS:
            return ListsOnGpu(asked, gpu, gpu.copy(asked.index))
    except RuntimeError as error:
        raise DeviceError(f"device cuda: {path}: GPU {gpu.number} can't hold it: {error}") from error
    raise DeviceError(
        f"device cuda: {path}: a GPU can't hold {kind}. It can hold Flat, and IVF with Flat, SQ or PQ; PCA and OPQ may "
        "be in front"
    )


@dataclass(frozen=True)
class FlatOnGpu:
    """A GPU finds the candidates of a flat index. They are scored as on the CPU, to the same bits."""

    cpu: Flat
    gpu: Gpu
    copy: Any
    """In float16."""
    lost: float
    """The length of what the copy lost of a vector, at most."""

    @property
    def index(self) -> Any:
        return self.cpu.index

    def fetch(self, queries: NDArray[np.float32], k: int, options: Options) -> Fetched:
        # The GPU would do so itself. Done here, it is known what it costs, and what is too large for float16.
        with np.errstate(over="ignore"):
            rounded = queries.astype(np.float16).astype(np.float32)
        if k > _MOST or options.selector is not None or not np.isfinite(rounded).all():
            return self.cpu.fetch(queries, k, options)
        candidates, rows = self.gpu.run(lambda: self.copy.search(rounded, k))
        return self.cpu.scored(queries, candidates, rows, self.cpu.slack(queries) + self._slack(queries, rounded))

    def _slack(self, queries: NDArray[np.float32], rounded: NDArray[np.float32]) -> NDArray[np.float64]:
        """(Q,): how far a score of the GPU may be from the true one: by what was lost of both, and in adding up."""
        lost, size = _lengths(queries.astype(np.float64) - rounded), _lengths(rounded)
        adding, longest = _ROUNDING * float(self.index.d + 2), self.cpu.longest + self.lost
        if self.index.metric_type == faiss.METRIC_INNER_PRODUCT:
            return lost * longest + self.lost * size + adding * size * longest
        sizes = size + lost + longest
        return 2 * (lost + self.lost) * sizes + adding * sizes**2


@dataclass(frozen=True)
class ListsOnGpu:
    """The lists of an IVF index are chosen on the CPU, and scanned on a GPU, whose scores differ in their last digits."""

    cpu: Lists
    gpu: Gpu
    copy: Any

    @property
    def index(self) -> Any:
        return self.cpu.index

    def fetch(self, queries: NDArray[np.float32], k: int, options: Options) -> Fetched:
        lists = self.cpu.chosen(queries, options)
        count = lists.ids.shape[1]
        if k > _MOST or count > _MOST or options.selector is not None or (lists.ids < 0).any():
            return self.cpu.fetch(queries, k, options)
        # A GPU believes that it is given as many lists as it is told to visit.
        told = _faiss.SearchParametersIVF(nprobe=count)
        return self.gpu.run(lambda: self.cpu.scan(self.copy, queries, k, lists, told))


def _gpu(number: int) -> Gpu:
    resources = _faiss.StandardGpuResources()
    resources.setTempMemory(_SCRATCH_BYTES)
    return Gpu(number, resources, threading.Lock())


def _lost_in_float16(asked: Flat) -> float:
    """The length of it, at most: half a unit in the last place of each number, or of the smallest there are."""
    if asked.longest > float(np.finfo(np.float16).max):
        raise RuntimeError("its vectors are too long for float16")
    return asked.longest * 2.0**-11 + math.sqrt(asked.index.d) * 2.0**-25


def _lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return lengths
