"""`vmmr-search build`: from embeddings and an index spec to an index version."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc import faiss_index
from search_svc.index_dir import new_version
from search_svc.items import write_items
from search_svc.labels import Label
from search_svc.version import (
    EMBEDDINGS_FILE,
    ITEMS_FILE,
    IndexVersion,
    Metric,
    SearchParams,
    ShardInfo,
    VersionManifest,
    write_version_manifest,
)
from svckit.cli import CommandError, progress

_COPY_ROWS = 8192


@dataclass(frozen=True)
class IndexSpec:
    """What index to build, and how it is searched unless a query says otherwise."""

    factory: str = "Flat"
    """A faiss factory string."""
    metric: Metric = "ip"
    shards: int = 1
    train_sample: int | None = None
    """Embeddings to train on; None: 39 a centroid (faiss' own minimum), at least 65536."""
    nprobe: int | None = None
    ef_search: int | None = None
    k: int = 5
    temperature: float | None = None
    """None: 0.05 (ip) or 0.1 (l2) of the embeddings' mean squared length."""
    seed: int = 0


def build_version(
    index_dir: Path,
    *,
    embeddings: NDArray[Any],
    item_ids: Sequence[str],
    labels: Sequence[Label],
    uris: Sequence[str],
    model: str,
    model_name: str,
    spec: IndexSpec,
    rows: NDArray[np.int64] | None = None,
) -> IndexVersion:
    """Builds the next version of `index_dir` and makes it the current one.

    `rows` are the rows of the `(M, dimension)` embeddings that make the gallery, all by default; ids, labels and uris
    are aligned with them. Raises CommandError before any work if the spec or the gallery makes no sense.
    """
    rows = np.arange(len(embeddings)) if rows is None else rows
    _check_gallery(rows, item_ids, labels, uris)
    index = _create(spec, len(rows), embeddings.shape[1])
    with new_version(index_dir) as (version, draft):
        gallery, mean_square = _copy_embeddings(draft / EMBEDDINGS_FILE, embeddings, rows, item_ids)
        write_items(draft / ITEMS_FILE, item_ids, labels, uris)
        train_sample = _train(index, gallery, spec)
        manifest = VersionManifest(
            version=version,
            model=model,
            model_name=model_name,
            dimension=embeddings.shape[1],
            items=len(rows),
            labels=len({label.label for label in labels}),
            factory=spec.factory,
            metric=spec.metric,
            shards=_write_shards(draft, index, gallery, spec.shards),
            search=SearchParams(spec.nprobe, spec.ef_search),
            k=spec.k,
            temperature=spec.temperature or {"ip": 0.05, "l2": 0.1}[spec.metric] * mean_square,
            seed=spec.seed,
            train_sample=train_sample,
            created=datetime.now(UTC),
        )
        write_version_manifest(draft, manifest)
    return IndexVersion.open(index_dir, version, verify=False)


def _check_gallery(
    rows: NDArray[np.int64], item_ids: Sequence[str], labels: Sequence[Label], uris: Sequence[str]
) -> None:
    if not len(rows):
        raise CommandError("there is no photo to index")
    if not len(rows) == len(item_ids) == len(labels) == len(uris):
        counts = f"{len(rows)} embeddings, {len(item_ids)} ids, {len(labels)} labels, {len(uris)} uris"
        raise CommandError(f"the gallery is out of line: {counts}")
    seen: set[str] = set()
    for item_id in item_ids:
        if item_id in seen:
            raise CommandError(f"two photos have the id {item_id!r}")
        seen.add(item_id)


def _create(spec: IndexSpec, items: int, dimension: int) -> Any:
    """The untrained index, once the spec is known to make sense for that many items."""
    if not 1 <= spec.shards <= items:
        raise CommandError(f"--shards must be 1 to {items}, the number of photos, got {spec.shards}")
    if spec.k < 1:
        raise CommandError(f"--k must be >= 1, got {spec.k}")
    if spec.temperature is not None and not 0 < spec.temperature < float("inf"):
        raise CommandError(f"--temperature must be a number > 0, got {spec.temperature}")
    index = faiss_index.create(spec.factory, dimension, spec.metric)
    _check_search_params(spec, index)
    _check_training(spec, index, items)
    return index


def _check_search_params(spec: IndexSpec, index: Any) -> None:
    lists = faiss_index.lists(index)
    if lists == 0:
        raise CommandError(f"--factory {spec.factory}: an IVF index needs lists")
    if spec.nprobe is not None and lists is None:
        raise CommandError(f"--nprobe is for IVF indexes, and {spec.factory} is none")
    if spec.nprobe is not None and not 1 <= spec.nprobe <= (lists or 0):
        raise CommandError(f"--nprobe must be 1 to {lists}, the lists of {spec.factory}, got {spec.nprobe}")
    if spec.ef_search is not None and not faiss_index.is_graph(index):
        raise CommandError(f"--ef-search is for HNSW indexes, and {spec.factory} is none")
    if spec.ef_search is not None and spec.ef_search < 1:
        raise CommandError(f"--ef-search must be >= 1, got {spec.ef_search}")


def _check_training(spec: IndexSpec, index: Any, items: int) -> None:
    needed = faiss_index.least_training_points(index)
    points = _train_sample(spec, index, items)
    if points < needed:
        raise CommandError(f"{spec.factory} needs {needed} embeddings or more to train on, and there are {points}")


def _train_sample(spec: IndexSpec, index: Any, items: int) -> int:
    if index.is_trained:
        return 0
    wanted = max(65536, 39 * (faiss_index.lists(index) or 0)) if spec.train_sample is None else spec.train_sample
    return min(items, wanted)


def _copy_embeddings(
    path: Path, embeddings: NDArray[Any], rows: NDArray[np.int64], item_ids: Sequence[str]
) -> tuple[NDArray[np.float16], float]:
    """Writes the gallery's embeddings as float16, and returns them, memory-mapped, and their mean squared length."""
    gallery = np.lib.format.open_memmap(path, "w+", np.float16, (len(rows), embeddings.shape[1]))
    squares = 0.0
    for start in range(0, len(rows), _COPY_ROWS):
        with np.errstate(over="ignore"):
            chunk = np.asarray(embeddings[rows[start : start + _COPY_ROWS]]).astype(np.float16)
        finite = np.isfinite(chunk).all(axis=1)
        if not finite.all():
            bad = item_ids[start + int(np.argmin(finite))]
            raise CommandError(f"the embedding of {bad!r} has a value that is not a number below 65504")
        squares += float(np.square(chunk, dtype=np.float64).sum())
        gallery[start : start + len(chunk)] = chunk
    gallery.flush()
    if squares == 0:
        raise CommandError("all embeddings are zero")
    return gallery, squares / len(rows)


def _train(index: Any, gallery: NDArray[np.float16], spec: IndexSpec) -> int:
    """Trains on a random sample; returns its size."""
    size = _train_sample(spec, index, len(gallery))
    if size:
        sample = np.sort(np.random.default_rng(spec.seed).choice(len(gallery), size, replace=False))
        faiss_index.train(index, gallery[sample].astype(np.float32))
    return size


def _write_shards(draft: Path, index: Any, gallery: NDArray[np.float16], shards: int) -> tuple[ShardInfo, ...]:
    edges = [len(gallery) * shard // shards for shard in range(shards + 1)]
    infos = tuple(ShardInfo(f"shard-{i:03d}.faiss", *edges[i : i + 2]) for i in range(shards))
    empty = faiss_index.serialise(index)
    with progress(total=len(gallery), desc="index", unit="photo") as bar:
        for info in infos:
            faiss_index.write_shard(draft / info.file, empty, gallery[info.start : info.stop], bar.update)
    return infos
