"""Pixels to embeddings: a model bundle in memory, and the share of the machine that one run of it takes.

A GPU runs one full batch at a time, on buffers that are bound to it once. A CPU runs each photo on one thread, and as many photos
at once as it has threads: threads that share a photo's work wait for each other, which costs a tenth to a fifth of the processor
and gains nothing while there are other photos to do. A photo that is there alone is done sooner with all threads; that takes a
second session, because the number of a session's threads is set when it is opened.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedder_svc.network import bundle
from embedder_svc.network.batches import buckets, filled_up, signature
from embedder_svc.network.bound_session import BoundSession
from embedder_svc.network.bundle import BundleInfo
from embedder_svc.network.detector import Detector
from embedder_svc.network.runtime import CPU, Device, Runtime
from svckit.artifact import ArtifactError
from svckit.cores import cores

_log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Embeddings = NDArray[np.float32]

# On a CPU a batch costs as much as its photos one by one, which are answered sooner and share the cores evenly.
_CPU_BATCH = 1
_GPU_BATCH = 32
# Two embeddings of one photo, of unit length, differ by less in each number. A GPU's runs differ by far less, if at all, embeddings
# of different photos by far more.
_SAME = 1e-3


def default_batch(*, on_cpu: bool) -> int:
    """Return how many photos are run at once, unless told otherwise."""
    return _CPU_BATCH if on_cpu else _GPU_BATCH


class Model:
    """A network in memory. Its methods may be called from several threads."""

    def __init__(
        self, session: Any, whole: Any | None, info: BundleInfo, graph: Path, *, lanes: int, max_batch: int
    ) -> None:
        """`session` is run in `lanes` threads at once; `whole`, if given, is a session on the same graph that takes all of them."""
        self.info = info
        self.provider: str = session.get_providers()[0]
        self.lanes = lanes
        """The number of batches that are best run at once."""
        self.max_batch = max_batch
        """Most photos in one run of the network."""
        self.buckets: tuple[int, ...] = () if self.provider == CPU else buckets(max_batch)
        """The batch sizes a GPU is given, smaller batches being padded: each new one costs it a slow first run."""
        self._session = session
        self._whole = whole
        self._graph = graph
        self.detector: Detector | None = None
        """What finds the cars; None if the model has none."""
        self._bound: BoundSession | None = None
        self._pool = ThreadPoolExecutor(lanes, "network")

    @classmethod
    def open(
        cls, path: Path, *, device: Device = "auto", threads: int | None = None, max_batch: int | None = None
    ) -> Self:
        """Read, verify and load a bundle. `auto` is CUDA where that works, else the CPU; `threads` is for a CPU alone.

        Raise ArtifactError naming the file that is wrong, or DeviceError.
        """
        info = bundle.read(path)
        graph = path / bundle.GRAPH
        runtime = Runtime(graph, input_size=info.input_size, max_batch=max_batch or _GPU_BATCH)
        session = runtime.session(device, threads=1)
        _check_contract(session, info, graph)
        on_cpu = session.get_providers()[0] == CPU
        lanes = (threads or cores()) if on_cpu else 1
        whole = runtime.session("cpu", threads=lanes) if lanes > 1 else None
        most = max_batch or default_batch(on_cpu=on_cpu)
        model = cls(session, whole, info, graph, lanes=lanes, max_batch=most)
        if whole:
            model.check_threads()
        if model.buckets:
            model.bind(runtime.bound(session, sizes=model.buckets, dimension=info.dimension))
        if info.detector:
            model.detector = Detector.open(
                path / bundle.DETECTOR, info.detector, device="cpu" if on_cpu else device, lanes=lanes, max_batch=most
            )
        about = {"model": info.name, "fingerprint": info.fingerprint, "provider": model.provider}
        if on_cpu and info.precision == "int8":
            about["arithmetic"] = runtime.int8
        _log.info("model", extra=about)
        return model

    def embed(self, pixels: Sequence[Pixels] | Pixels) -> Embeddings:
        """Return the embeddings (N, dimension) of any number N of photos (size, size, 3), using all of the machine."""
        batches = [pixels[start : start + self.max_batch] for start in range(0, len(pixels), self.max_batch)]
        if not batches:
            return np.empty((0, self.info.dimension), np.float32)
        if len(batches) == 1:
            return self.embed_alone(batches[0])
        return np.concatenate(list(self._pool.map(self.embed_in_lane, batches)))

    def embed_in_lane(self, pixels: Sequence[Pixels] | Pixels) -> Embeddings:
        """Return the embeddings of 1 to `max_batch` photos; up to `lanes` such runs may go on at once."""
        return self._run(self._session, pixels)

    def embed_alone(self, pixels: Sequence[Pixels] | Pixels) -> Embeddings:
        """Return the embeddings of 1 to `max_batch` photos while nothing else runs: the same bits, sooner."""
        return self._run(self._whole or self._session, pixels)

    def warm_up(self) -> None:
        """Run every batch size once. Raise ArtifactError if the embeddings are not finite, or of another shape."""
        if self.detector:
            self.detector.warm_up()
        side = self.info.input_size
        for count in self.buckets or (1,):
            if not np.isfinite(self._run(self._session, np.zeros((count, side, side, 3), np.uint8))).all():
                raise ArtifactError(self._graph, "does not give finite numbers for a black photo")

    def check_threads(self) -> None:
        """Use one thread a photo after this call if all threads give other bits; no model exported here was found to need that."""
        side = self.info.input_size
        noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
        if self.embed_alone(noise).tobytes() != self.embed_in_lane(noise).tobytes():
            self._whole = None
            _log.warning("threads change embeddings: each photo gets one", extra={"fingerprint": self.info.fingerprint})

    def bind(self, bound: BoundSession) -> None:
        """Run batches on bound buffers after this call, unless a photo's embedding is not the same there as in a plain run."""
        side = self.info.input_size
        noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
        expected = self._run(self._session, noise)
        if np.allclose(bound.run(noise), expected, atol=_SAME):
            self._bound = bound
        else:
            _log.warning("bound buffers change embeddings: done without", extra={"fingerprint": self.info.fingerprint})

    def _run(self, session: Any, pixels: Sequence[Pixels] | Pixels) -> Embeddings:
        """Run (N, size, size, 3) to (N, dimension), N <= max_batch. Raise ArtifactError if the graph gives another shape."""
        if self._bound:
            return self._bound.run(pixels)
        size = next((bucket for bucket in self.buckets if bucket >= len(pixels)), len(pixels))
        embeddings: Embeddings = session.run(["embeddings"], {"images": filled_up(pixels, size)})[0]
        expected = (size, self.info.dimension)
        if embeddings.shape != expected:
            raise ArtifactError(self._graph, f"gives embeddings {embeddings.shape}, not {expected} as `dimension` says")
        return embeddings[: len(pixels)]


def _check_contract(session: Any, info: BundleInfo, graph: Path) -> None:
    """Raise ArtifactError unless the graph's input and output are as `embedder_svc.network.bundle` says."""
    inputs, outputs = signature(session.get_inputs()), signature(session.get_outputs())
    side = info.input_size
    if inputs != [("images", "tensor(uint8)", (None, side, side, 3))]:
        raise ArtifactError(graph, f"its input must be `images`, uint8 (N, {side}, {side}, 3), it has {inputs}")
    width = outputs[0][2][-1:]  # of which a graph need not tell anything
    named = [output[:2] for output in outputs] == [("embeddings", "tensor(float)")]
    if not named or width not in ((info.dimension,), (None,), ()):
        raise ArtifactError(graph, f"its output must be `embeddings`, float32 (N, {info.dimension}), it has {outputs}")
