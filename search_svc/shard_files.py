"""From a gallery on disk to shard files: an index is trained once, on a sample, and cloned for every shard.

No more of the gallery is in memory at a time than the sample, and then a chunk beside each shard that is being filled.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc import faiss_index
from search_svc.sharding import balanced, file_names
from search_svc.spec import IndexSpec, create_index, train_sample_size
from search_svc.version import ShardInfo

_CHUNK_ROWS = 8192


def write_shards(
    directory: Path,
    gallery: NDArray[np.float16],
    spec: IndexSpec,
    *,
    parts: Sequence[range] | None = None,
    workers: int = 1,  # noqa: ARG001 - comes with the next change
    on_added: Callable[[int], Any] = lambda rows: None,  # noqa: ARG005
) -> tuple[ShardInfo, ...]:
    """Writes the shards of a `(N, dimension)` gallery, a memory-mapped .npy file, into `directory`.

    `parts` are the rows of each shard, balanced by default. `on_added` hears of rows that were added. Raises CommandError
    if the spec makes no sense.
    """
    index = create_index(spec, *gallery.shape)
    _train(index, gallery, spec)
    empty = faiss_index.serialise(index)
    parts = parts or balanced(len(gallery), spec.shards)
    return tuple(
        _write(directory / name, empty, gallery, rows, on_added)
        for name, rows in zip(file_names(parts), parts, strict=True)
    )


def _train(index: Any, gallery: NDArray[np.float16], spec: IndexSpec) -> None:
    size = train_sample_size(spec, index, len(gallery))
    if size:
        rows = np.sort(np.random.default_rng(spec.seed).choice(len(gallery), size, replace=False))
        faiss_index.train(index, gallery[rows].astype(np.float32))


def _write(
    path: Path,
    empty: NDArray[np.uint8],
    gallery: NDArray[np.float16],
    rows: range,
    on_added: Callable[[int], Any],
) -> ShardInfo:
    longest = 0.0
    shard = faiss_index.deserialise(empty)
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = gallery[_slice(rows[start : start + _CHUNK_ROWS])].astype(np.float32)
        longest = max(longest, float(np.square(chunk, dtype=np.float64).sum(axis=1).max()) ** 0.5)
        shard.add(chunk)
        on_added(len(chunk))
    faiss_index.write(shard, path)
    return ShardInfo(path.name, rows.start, rows.stop, rows.step, longest)


def _slice(rows: range) -> slice:
    return slice(rows.start, rows.stop, rows.step)
