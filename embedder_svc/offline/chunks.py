"""Chunks of a collection's photos to embeddings: what every process does that embeds a part of one."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedder_svc.network.bundle import BundleInfo
from embedder_svc.network.cutter import Cutter, Part
from embedder_svc.network.model import Model
from embedder_svc.offline.draft import Dtype
from embedder_svc.photos.photo_folder import PhotoFolder
from svckit.cli import CommandError

_PHOTOS = 64
AT_ONCE = 2
"""Chunks that a process has in hand: while the photos of one are read, the network runs on those of the other."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Work:
    """What is to be made of each photo."""

    folder: PhotoFolder
    """The folder where the photos' names start."""
    dtype: Dtype
    whole: bool
    """Whether whole photos are embedded, also with a model that finds the car in them."""


@dataclass(frozen=True)
class Chunk:
    """What became of the photos of a chunk."""

    embeddings: NDArray[Any]
    """(n, dimension), of those that could be read, in order."""
    unreadable: dict[int, str]
    """By their place in the chunk, why the others could not."""
    cuts: list[list[str]]
    """For each embedding, the cells that say which part of the photo it is of; none if the model has no detector."""


class Embedder(Protocol):
    """Embeds chunks of photos, somewhere."""

    info: BundleInfo
    chunk_size: int
    """Photos in a chunk."""

    def embed_all(self, chunks: Iterable[Sequence[str]]) -> Generator[Chunk, None, None]:
        """Yield what became of each chunk of names, in order. Raise CommandError or ArtifactError."""


class ChunkEmbedder:
    """Embeds a chunk of photos. `embed` may be called from several threads."""

    def __init__(self, model: Model, work: Work, *, workers: int) -> None:
        """`workers` threads decode photos; more of them wait for those of a folder that is slow to give them."""
        self._model = model
        self._work = work
        self._part = Cutter(model, whole=work.whole).part
        self._readers = ThreadPoolExecutor(work.folder.readers(workers), "read")
        self._decoding = BoundedSemaphore(workers)
        self._network = Lock()

    def close(self) -> None:
        """Stop reading photos, also for calls of `embed` that go on."""
        self._readers.shutdown(cancel_futures=True)

    def embed(self, names: Sequence[str]) -> Chunk:
        """Return what became of these photos. Raise CommandError if an embedding is not finite."""
        found = list(self._readers.map(self._read, names))
        parts = [part for part in found if not isinstance(part, str)]
        unreadable = {place: part for place, part in enumerate(found) if isinstance(part, str)}
        with self._network:
            embeddings = self._model.embed([pixels for pixels, _ in parts])
        return Chunk(_converted(embeddings, self._work.dtype), unreadable, [cells for _, cells in parts if cells])

    def embedding(self, content: bytes) -> NDArray[np.float32]:
        """Return the embedding of an encoded photo, (dimension,), as the network gives it. Raise PhotoError."""
        pixels, _ = self._part(content)
        with self._network:
            embedding: NDArray[np.float32] = self._model.embed([pixels])[0]
        return embedding

    def _read(self, name: str) -> Part | str:
        return self._work.folder.attempt(name, self._decoded)

    def _decoded(self, content: bytes) -> Part:
        with self._decoding:
            return self._part(content)


class LocalEmbedder:
    """Embeds chunks in this process: `workers` threads read and decode photos while the network runs."""

    def __init__(self, model: Model, work: Work, *, workers: int) -> None:
        self.info = model.info
        self.chunk_size = chunk_size(model.max_batch)
        self._embedder = ChunkEmbedder(model, work, workers=workers)

    def embed_all(self, chunks: Iterable[Sequence[str]]) -> Generator[Chunk, None, None]:
        with ThreadPoolExecutor(AT_ONCE, "chunk") as pool:
            try:
                yield from _map_in_order(pool, self._embedder.embed, chunks, ahead=AT_ONCE)
            finally:
                self._embedder.close()


def chunk_size(max_batch: int) -> int:
    """Return how many photos are embedded between two lines of a draft's journal: whole runs of the network."""
    return max_batch * -(-_PHOTOS // max_batch)


def _converted(embeddings: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        converted = embeddings.astype(np.dtype(dtype).newbyteorder("<"))
    if not np.isfinite(converted).all():
        raise CommandError(f"an embedding is not finite in {dtype}: its values are too large for it, or not numbers")
    return converted


def _map_in_order(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """Like `pool.map`, but with at most `ahead` results waiting, so that a slow consumer does not fill the memory."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
