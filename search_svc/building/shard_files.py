"""Writes shard files from a gallery on the disk: an index is trained once, on a sample, and copied for every shard.

No more of the gallery is in memory at a time than the sample, and then a chunk beside each shard that is being filled.

    WORK/trained.faiss          the index, trained and empty
    WORK/shard-000-81920.faiss  a shard with the first 81,920 of its rows, written every minute or so
    WORK/*.json                 records of which of these, and of the finished shards, are on the disk
"""

import dataclasses
import functools
import secrets
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.building import faiss_index, on_ray, workers
from search_svc.building.checkpoints import Checkpoint, Checkpoints, Pace
from search_svc.building.mapped import drop_pages
from search_svc.building.sharding import balanced
from search_svc.building.spec import IndexSpec, Resources, create_index, train_sample_size, wanted_sample_size
from search_svc.engine.threads import use_cores
from search_svc.index.version import ShardInfo
from svckit import ray_cluster
from svckit.cli import CommandError
from svckit.cores import cores

_CHUNK_ROWS = 8192
_CHUNKS_A_PROCESS = 4
"""Chunks that a process holds: one as float16, as float32 (twice the size), and faiss' copy while it is added."""
_TRAINED = "trained"


def write_shards(
    directory: Path,
    gallery: NDArray[np.float16],
    spec: IndexSpec,
    *,
    parts: Sequence[range] | None = None,
    resources: Resources = Resources(),
    work: Path | None = None,
    trained: Path | None = None,
    on_added: Callable[[int], Any] = lambda rows: None,  # noqa: ARG005
) -> tuple[ShardInfo, ...]:
    """Write the shards of a gallery, (N, dimension) in a memory-mapped .npy file, into `directory`.

    `parts` are the rows of each shard, balanced by default. Fewer processes fill shards if the memory does not allow more; if
    one does, it is this process. A run that was killed is continued from what it left in `work`, if its arguments were the
    same. `trained` is a shard file whose training is taken over. `on_added` is called with the number of rows as they are
    added. Raises CommandError if the spec makes no sense.
    """
    parts = parts or balanced(len(gallery), spec.shards)
    with nullcontext(work) if work else tempfile.TemporaryDirectory(prefix=".work-", dir=directory) as place:
        checkpoints = Checkpoints(Path(place))
        if resources.ray:
            return _write_on_ray(
                resources.ray,
                directory,
                gallery,
                spec,
                parts=parts,
                resources=resources,
                checkpoints=checkpoints,
                trained=trained,
                on_added=on_added,
            )
        empty = _empty(checkpoints, gallery, spec, resources.memory_bytes, trained)
        shards = [_Shard.begin(directory, number, rows, empty, checkpoints) for number, rows in enumerate(parts)]
        _fill([shard for shard in shards if not shard.whole], gallery, resources, on_added)
        return tuple(shard.info() for shard in shards)


def progress_of(work: Path, shards: int) -> tuple[bool, int]:
    """Return how far a run came that was killed: whether the index is trained, and how many rows were added."""
    checkpoints = Checkpoints(work)
    return checkpoints.has(_TRAINED), sum(_rows(checkpoints, [_name(number) for number in range(shards)]))


def _rows(checkpoints: Checkpoints, names: Sequence[str]) -> list[int]:
    """Return how many rows of each shard are recorded."""
    return [int(checkpoints.state(name).get("rows", 0)) for name in names]


def _name(number: int) -> str:
    return f"shard-{number:03d}"


def _empty(
    checkpoints: Checkpoints, gallery: NDArray[np.float16], spec: IndexSpec, memory_bytes: int, trained: Path | None
) -> Path:
    """Return the file of the trained, empty index, which is made unless an earlier run has left it."""
    if kept := checkpoints.find(_TRAINED):
        return kept.path
    index = faiss_index.read_trained(trained) if trained else _train(gallery, spec, memory_bytes)
    path = checkpoints.directory / f"{_TRAINED}.faiss"
    faiss_index.write(index, path)
    checkpoints.keep(_TRAINED, path)
    return path


def _train(gallery: NDArray[np.float16], spec: IndexSpec, memory_bytes: int) -> Any:
    """Return an empty index that is trained on a random sample."""
    index = create_index(spec, len(gallery), gallery.shape[1], memory_bytes)
    if size := train_sample_size(spec, index, len(gallery), memory_bytes):
        wanted = wanted_sample_size(spec, index, len(gallery))
        cut = f", as many as --memory allows, of {wanted}" if size < wanted else ""
        print(f"training {spec.factory} on {size} embeddings{cut}", file=sys.stderr)
        faiss_index.train(index, _sample(gallery, size, spec.seed))
    return index


def _sample(gallery: NDArray[np.float16], size: int, seed: int) -> NDArray[np.float32]:
    """Return random rows of the gallery, in their order. (size, dimension)"""
    rows = np.sort(np.random.default_rng(seed).choice(len(gallery), size, replace=False))
    sample = np.empty((size, gallery.shape[1]), np.float32)
    for start in range(0, size, _CHUNK_ROWS):
        sample[start : start + _CHUNK_ROWS] = gallery[rows[start : start + _CHUNK_ROWS]]
        drop_pages(gallery)
    return sample


@dataclass(frozen=True)
class _Shard:
    path: Path
    rows: range
    trained: Path
    checkpoints: Checkpoints
    found: Checkpoint | None
    """What an earlier run left of it."""

    @classmethod
    def begin(cls, directory: Path, number: int, rows: range, trained: Path, checkpoints: Checkpoints) -> "_Shard":
        name = _name(number)
        return cls(directory / f"{name}.faiss", rows, trained, checkpoints, checkpoints.find(name))

    @property
    def whole(self) -> bool:
        return self.found is not None and self.found.path == self.path

    @property
    def done(self) -> int:
        return int(self.found.state["rows"]) if self.found else 0

    def fill(self, gallery: NDArray[np.float16], on_added: Callable[[int], Any]) -> None:
        """Add the rows that are missing, a chunk at a time, and write the shard."""
        index = faiss_index.read(self.found.path if self.found else self.trained)
        faiss_index.reserve(index, len(self.rows))
        longest = self.found.state["longest"] if self.found else 0.0
        pace = Pace()
        for start in range(self.done, len(self.rows), _CHUNK_ROWS):
            rows = self.rows[start : start + _CHUNK_ROWS]
            chunk = gallery[rows.start : rows.stop : rows.step].astype(np.float32)
            drop_pages(gallery)
            faiss_index.add(index, chunk)
            longest = max(longest, float(np.einsum("nd,nd->n", chunk, chunk).max()) ** 0.5)
            on_added(len(chunk))
            pace.maybe(functools.partial(self._keep_part, index, longest))
        self._write(index)
        self.checkpoints.keep(self.path.stem, self.path, rows=len(self.rows), longest=longest)
        self._drop_parts()

    def info(self) -> ShardInfo:
        """Return what is recorded of the shard, which is whole. Raise CommandError if it is not."""
        state = self.checkpoints.state(self.path.stem)
        if state.get("rows") != len(self.rows) or not self.path.is_file():
            raise CommandError(
                f"{self.path} was made, and is not seen here: with --ray, the index must be on storage that all nodes share. If it is, "
                "and shows files late, the same command goes on from here"
            )
        return ShardInfo(self.path.name, self.rows.start, self.rows.stop, self.rows.step, state["longest"])

    def _write(self, index: Any) -> None:
        """Write the shard by one rename: another process may be at the same shard, if this one was given up."""
        draft = self.checkpoints.directory / f"{self.path.stem}.{secrets.token_hex(4)}.tmp"
        faiss_index.write(index, draft)
        self.checkpoints.check_run()
        draft.replace(self.path)

    def _keep_part(self, index: Any, longest: float) -> None:
        part = self.checkpoints.directory / f"{self.path.stem}-{index.ntotal}.faiss"
        faiss_index.write(index, part)
        self.checkpoints.keep(self.path.stem, part, rows=index.ntotal, longest=longest)
        self._drop_parts(but=part)

    def _drop_parts(self, but: Path | None = None) -> None:
        for part in self.checkpoints.directory.glob(f"{self.path.stem}-*.faiss"):
            if part != but:
                part.unlink()


def _fill(
    shards: Sequence[_Shard],
    gallery: NDArray[np.float16],
    resources: Resources,
    on_added: Callable[[int], Any],
) -> None:
    chunk_bytes = 4 * _CHUNK_ROWS * gallery.shape[1]
    processes = min(resources.processes, len(shards), resources.memory_bytes // (_CHUNKS_A_PROCESS * chunk_bytes))
    if processes > 1 and (file := _file(gallery)):
        tasks = [functools.partial(_fill_from, shard, file) for shard in shards]
        threads = max(1, cores() // processes)
        workers.run(tasks, processes, functools.partial(use_cores, threads), on_added)
        return
    for shard in shards:
        shard.fill(gallery, on_added)


def _write_on_ray(
    address: str,
    directory: Path,
    gallery: NDArray[np.float16],
    spec: IndexSpec,
    *,
    parts: Sequence[range],
    resources: Resources,
    checkpoints: Checkpoints,
    trained: Path | None,
    on_added: Callable[[int], Any],
) -> tuple[ShardInfo, ...]:
    """Do as `write_shards`, by tasks of a cluster: one trains, and then one fills each shard."""
    file = _file(gallery)
    assert file, "a build has a copy of its embeddings"
    checkpoints = checkpoints.begin_run()
    names = [_name(number) for number in range(len(parts))]
    told = sum(_rows(checkpoints, names))

    def tell() -> None:
        nonlocal told
        now = sum(_rows(checkpoints, names))
        on_added(now - told)
        told = now

    train = functools.partial(_train_on_ray, checkpoints, file, spec, resources.memory_bytes, trained)
    with ray_cluster.connected(address) as ray:
        if not checkpoints.find(_TRAINED):
            on_ray.run(ray, [train], 1, lambda: None)
        empty = _empty(checkpoints, gallery, spec, resources.memory_bytes, trained)
        shards = [_Shard.begin(directory, number, rows, empty, checkpoints) for number, rows in enumerate(parts)]
        tasks = [functools.partial(_fill_on_ray, shard, file) for shard in shards if not shard.whole]
        on_ray.run(ray, tasks, resources.processes, tell)
    return tuple(shard.info() for shard in shards)


def _file(gallery: NDArray[np.float16]) -> Path | None:
    """Return the .npy file that holds exactly this gallery, or None if there is none."""
    if not isinstance(gallery, np.memmap) or gallery.filename is None:
        return None
    whole = np.load(gallery.filename, mmap_mode="r")
    return Path(gallery.filename) if (whole.shape, whole.dtype) == (gallery.shape, gallery.dtype) else None


def _fill_from(shard: _Shard, gallery: Path, on_added: Callable[[int], Any]) -> None:
    shard.fill(np.load(gallery, mmap_mode="r"), on_added)


def _train_on_ray(
    checkpoints: Checkpoints, gallery: Path, spec: IndexSpec, memory_bytes: int, trained: Path | None
) -> None:
    use_cores(cores())
    _empty(checkpoints, np.load(gallery, mmap_mode="r"), spec, memory_bytes, trained)


def _fill_on_ray(shard: _Shard, gallery: Path) -> None:
    """Fill the shard, from where an earlier run of this task has left it."""
    use_cores(1)
    shard = dataclasses.replace(shard, found=shard.checkpoints.find(shard.path.stem))
    if not shard.whole:
        shard.fill(np.load(gallery, mmap_mode="r"), lambda _: None)
