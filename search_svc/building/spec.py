"""Index specs: what index to build, checked before any work."""

from dataclasses import dataclass
from typing import Any, Literal

from search_svc.building import faiss_index
from search_svc.engine.faiss_layers import is_hnsw
from search_svc.index.version import Metric
from svckit.cli import CommandError

_LEAST_DEFAULT_SAMPLE = 65536
_POINTS_A_CENTROID = 39
"""With fewer points faiss warns of poor centroids."""
MEMORY_BYTES = 2 * 2**30
"""Memory that a build may use beside the shards that are being filled, unless told otherwise."""
_SAMPLE_SHARE, _OPQ_SAMPLE_SHARE = 1 / 3, 1 / 6
"""Share of the memory for the training sample: to train, faiss takes as much again, and for OPQ four times as much."""
_LARGEST_RERANK = 1000

ShardBy = Literal["balanced", "label"]
"""balanced: a shard holds every Nth row; label: a shard holds all rows of some labels."""


@dataclass(frozen=True)
class Resources:
    """The part of the machine that a build may use."""

    processes: int = 1
    """Most processes that fill shards, each one shard at a time."""
    memory_bytes: int = MEMORY_BYTES
    """Most memory of all processes together, beside the shards that are being filled."""
    ray: str | None = None
    """HOST:PORT of a Ray cluster, whose nodes train the index and fill the shards; None: this machine does."""


@dataclass(frozen=True)
class IndexSpec:
    """The index to build, and how it is searched unless a query says otherwise."""

    factory: str = "Flat"
    """A faiss factory string."""
    metric: Metric = "ip"
    shards: int = 1
    shard_by: ShardBy = "balanced"
    train_sample: int | None = None
    """How many embeddings to train on; None: 39 a centroid, and 65536 at least."""
    nprobe: int | None = None
    ef_search: int | None = None
    rerank: int | None = None
    """Candidates for each neighbour, which are compared again with the embeddings; None: the index's own scores count."""
    k: int | None = None
    """Neighbours that vote; None: fitted with the calibration, or 5 without one."""
    temperature: float | None = None
    """Temperature of the vote; None: fitted with the calibration, or without one 0.05 (ip) or 0.1 (l2) times the embeddings'
    mean squared length."""
    seed: int = 0
    """Seed of the training sample, and of what fitting draws."""


def create_index(spec: IndexSpec, items: int, dimension: int, memory_bytes: int = MEMORY_BYTES) -> Any:
    """Return an empty, untrained faiss index. Raises CommandError, naming the flag, if the spec makes no sense."""
    _check_numbers(spec, items)
    index = faiss_index.create(spec.factory, dimension, spec.metric)
    _check_search_params(spec, index)
    needed = faiss_index.least_training_points(index)
    points = train_sample_size(spec, index, items, memory_bytes)
    if points < needed:
        cut = points < wanted_sample_size(spec, index, items)
        there = f"--memory allows {points}" if cut else f"there are {points}"
        raise CommandError(f"--factory {spec.factory} needs {needed} embeddings or more to train on, {there}")
    return index


def train_sample_size(spec: IndexSpec, index: Any, items: int, memory_bytes: int = MEMORY_BYTES) -> int:
    """Return how many of `items` embeddings to train on; 0 if the index needs no training."""
    if index.is_trained:
        return 0
    share = _OPQ_SAMPLE_SHARE if "OPQ" in spec.factory else _SAMPLE_SHARE
    allowed = int(memory_bytes * share) // (4 * int(index.d))
    return min(wanted_sample_size(spec, index, items), allowed)


def wanted_sample_size(spec: IndexSpec, index: Any, items: int) -> int:
    """Return how many of `items` embeddings to train on if memory allows."""
    default = max(_LEAST_DEFAULT_SAMPLE, _POINTS_A_CENTROID * faiss_index.centroids(index))
    return min(items, spec.train_sample or default)


def _check_numbers(spec: IndexSpec, items: int) -> None:
    if not 1 <= spec.shards <= items:
        raise CommandError(f"--shards must be 1 to {items}, the number of photos, got {spec.shards}")
    if spec.train_sample is not None and spec.train_sample < 1:
        raise CommandError(f"--train-sample must be >= 1, got {spec.train_sample}")
    if spec.rerank is not None and not 1 <= spec.rerank <= _LARGEST_RERANK:
        raise CommandError(f"--rerank must be 1 to {_LARGEST_RERANK}, got {spec.rerank}")
    if spec.k is not None and spec.k < 1:
        raise CommandError(f"--k must be >= 1, got {spec.k}")
    if spec.temperature is not None and not 0 < spec.temperature < float("inf"):
        raise CommandError(f"--temperature must be a number > 0, got {spec.temperature}")
    if spec.seed < 0:
        raise CommandError(f"--seed must be >= 0, got {spec.seed}")


def _check_search_params(spec: IndexSpec, index: Any) -> None:
    lists = faiss_index.lists(index)
    if lists == 0:
        raise CommandError(f"--factory {spec.factory}: an IVF index needs lists")
    if spec.nprobe is not None and lists is None:
        raise CommandError(f"--nprobe is for IVF indexes, and {spec.factory} is none")
    if spec.nprobe is not None and not 1 <= spec.nprobe <= (lists or 0):
        raise CommandError(f"--nprobe must be 1 to {lists}, the lists of {spec.factory}, got {spec.nprobe}")
    if spec.ef_search is not None and not is_hnsw(index):
        raise CommandError(f"--ef-search is for HNSW indexes, and {spec.factory} is none")
    if spec.ef_search is not None and spec.ef_search < 1:
        raise CommandError(f"--ef-search must be >= 1, got {spec.ef_search}")
