"""Chunks of photos embedded by actors of a Ray cluster, each of which has the network in memory.

Ray starts an actor again that has died, on whichever node has room, and gives it its chunks once more. A chunk that has been away for
much longer than any other took is given to another actor as well: whichever is done first counts, since both come to the same.
"""

import hashlib
import io
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embedder_svc.network import bundle, model
from embedder_svc.network.model import Model
from embedder_svc.network.runtime import Device
from embedder_svc.offline.chunks import AT_ONCE, Chunk, ChunkEmbedder, Work, chunk_size
from embedder_svc.photos.photo_folder import FetchError, PhotoFolder
from svckit import ray_cluster
from svckit.artifact import file_names
from svckit.cli import CommandError

_RETRIES = 3
"""The times a chunk is tried again whose actor died: photos that end a process that reads them must not end all, one by one."""
_PATIENCE_S = 60.0
"""The time after which a chunk is given to a second actor, beside three times the longest that any took."""
_WAIT_S = 1.0
_WAITING_A_SLOT = 2
"""Chunks that may be away or wait for their turn, for each that actors can have in hand."""


@dataclass(frozen=True)
class Share:
    """The part of a node that an actor takes."""

    cpus: int = 1
    gpus: float = 0

    @property
    def device(self) -> Device:
        return "cuda" if self.gpus else "cpu"

    @property
    def resources(self) -> dict[str, float]:
        return {"CPU": self.cpus, "GPU": self.gpus}


class RayEmbedder:
    """Embeds chunks on the cluster that `ray` is connected to. All of its nodes see the folder of photos under the same path or URL."""

    def __init__(
        self, ray: Any, path: Path, work: Work, share: Share, *, actors: int | None = None, max_batch: int | None = None
    ) -> None:
        """`path` is the model bundle, which is sent to the actors; there are as many of them as have room, unless told otherwise.

        Raise CommandError if there is room for none, or ArtifactError.
        """
        self.info = bundle.read(path)
        batch = max_batch or model.default_batch(on_cpu=not share.gpus)
        self.chunk_size = chunk_size(batch)
        self._ray = ray
        self._number = actors or _room(ray, share)
        files = {name: (path / name).read_bytes() for name in file_names(path)}
        self._arguments = (ray_cluster.put(ray, files), work, share, batch)
        self._work = work
        self._share = share

    def embed_all(self, chunks: Iterable[Sequence[str]]) -> Generator[Chunk, None, None]:
        kind = self._ray.remote(Actor).options(
            num_cpus=self._share.cpus,
            num_gpus=self._share.gpus,
            max_restarts=-1,
            max_task_retries=_RETRIES,
            max_concurrency=AT_ONCE,
            scheduling_strategy="SPREAD",
        )
        pool = Pool(self._ray, [kind.remote(*self._arguments) for _ in range(self._number)])
        for names, chunk in pool.map_in_order(chunks):
            check_seen(self._work.folder, names, chunk)
            yield chunk


class Actor:
    """A process of the cluster that embeds chunks."""

    def __init__(self, files: bytes, work: Work, share: Share, max_batch: int) -> None:
        with tempfile.TemporaryDirectory(prefix="vmmr-bundle-") as directory:
            for name, content in ray_cluster.get(files).items():
                (Path(directory) / name).write_bytes(content)
            network = Model.open(Path(directory), device=share.device, threads=share.cpus, max_batch=max_batch)
        self._embedder = ChunkEmbedder(network, work, workers=share.cpus)

    def prove(self, photo: bytes) -> str:
        """Return a digest of the embedding of an encoded photo."""
        return hashlib.sha256(self._embedder.embedding(photo).tobytes()).hexdigest()

    def embed(self, names: Sequence[str]) -> Chunk:
        try:
            return self._embedder.embed(names)
        except FetchError as error:
            raise CommandError(f"on {socket.gethostname()}, a node of the cluster: {error}") from None


@dataclass
class _Away:
    """A chunk that actors have, and that is not done."""

    names: Sequence[str]
    since: float
    """When it was given to one of them last."""


class Pool:
    """Actors, and what they have in hand."""

    def __init__(self, ray: Any, actors: Sequence[Any]) -> None:
        self._ray = ray
        self._window = _WAITING_A_SLOT * AT_ONCE * len(actors)
        self._free: deque[Any] = deque()
        """Actors with room for a chunk, once for each that they have room for."""
        photo = _photo()
        self._starting = {actor.prove.remote(photo): actor for actor in actors}
        self._running: dict[Any, tuple[Any, int]] = {}
        self._away: dict[int, _Away] = {}
        self._longest_s = 0.0
        self._proofs: set[str] = set()

    def map_in_order(self, chunks: Iterable[Sequence[str]]) -> Iterator[tuple[Sequence[str], Chunk]]:
        """Yield each chunk of names with what became of it, in order. No more of them than a window are away, or wait for their turn."""
        numbered, done = enumerate(chunks), dict[int, tuple[Sequence[str], Chunk]]()
        following, due = next(numbered, None), 0
        while following or self._away or done:
            while self._free and following and following[0] < due + self._window:
                self._give(*following)
                following = next(numbered, None)
            self._give_again()
            done |= self._wait()
            while due in done:
                yield done.pop(due)
                due += 1

    def _give(self, number: int, names: Sequence[str]) -> None:
        actor = self._free.popleft()
        self._running[actor.embed.remote(names)] = actor, number
        self._away[number] = _Away(names, time.monotonic())

    def _give_again(self) -> None:
        """Give the chunks that have been away for too long to actors with nothing else to do."""
        overdue_since = time.monotonic() - _PATIENCE_S - 3 * self._longest_s
        for number, away in self._away.items():
            if self._free and away.since < overdue_since:
                self._give(number, away.names)

    def _wait(self) -> Iterator[tuple[int, tuple[Sequence[str], Chunk]]]:
        """Wait until something is done, but not for long. Yield the number and the names of each chunk that is, and what became of it."""
        ready, _ = self._ray.wait([*self._starting, *self._running], timeout=_WAIT_S)
        for reference in ready:
            if actor := self._starting.pop(reference, None):
                self.welcome(actor, ray_cluster.result(self._ray, reference, "an actor that was to embed photos"))
                continue
            actor, number = self._running.pop(reference)
            self._free.append(actor)
            if away := self._away.pop(number, None):
                photos = f"the photos {away.names[0]} to {away.names[-1]}, or others that the same process had in hand"
                yield number, (away.names, ray_cluster.result(self._ray, reference, photos))
                self._longest_s = max(self._longest_s, time.monotonic() - away.since)

    def welcome(self, actor: Any, proof: str) -> None:
        """Give an actor that is ready work from now on; warn if its proof is not that of the others."""
        self._free.extend([actor] * AT_ONCE)
        if self._proofs and proof not in self._proofs:
            print(
                "warning: the nodes of the cluster do not embed a photo to the same bits: their processors or libraries differ, and so "
                "will the embeddings, in their last digits, from those of one machine",
                file=sys.stderr,
            )
        self._proofs.add(proof)


def check_seen(folder: PhotoFolder, names: Sequence[str], chunk: Chunk) -> None:
    """Raise CommandError if a photo that a node could not open can be opened here: it is not the photo that is unreadable."""
    for place, why in chunk.unreadable.items():
        if not why.startswith("IMAGE_") and not isinstance(folder.attempt(names[place], len), str):
            raise CommandError(
                f"a node of the cluster can't open {folder.named(names[place])} ({why}), which can be opened here: each node needs the "
                "photos under the same path or URL; the same command goes on from here"
            )


def _room(ray: Any, share: Share) -> int:
    """Return how many actors the cluster has room for. Raise CommandError if it is none."""
    if not (found := ray_cluster.room(ray.nodes(), share.resources)):
        raise CommandError(
            f"no node of the cluster has {share.cpus} CPUs"
            + (f" and {share.gpus:g} GPUs" if share.gpus else "")
            + ": lower --actor-cpus or --actor-gpus, or name how many --actors to wait for"
        )
    return found


def _photo() -> bytes:
    """Return an encoded photo of noise, which every actor embeds before any other."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()
