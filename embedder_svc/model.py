"""Pixels to embeddings: a model bundle on onnxruntime, on the device that was asked for and on no other."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from embedder_svc import bundle
from embedder_svc.bundle import BundleInfo
from svckit import wheels
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from svckit.cores import cores

_log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
DEVICES: tuple[str, ...] = get_args(Device)

_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

# On a CPU a batch costs as much as its photos one by one: small ones answer sooner. A GPU wants them full.
_CPU_BATCH = 4
_GPU_BATCH = 32


class DeviceError(CommandError):
    """The device that was asked for can't be used."""


class Model:
    """A network in memory. `embed` may be called from several threads."""

    def __init__(self, session: Any, info: BundleInfo, graph: Path, max_batch: int | None) -> None:
        self.info = info
        self.provider: str = session.get_providers()[0]
        on_gpu = self.provider != _CPU
        self.max_batch = max_batch or (_GPU_BATCH if on_gpu else _CPU_BATCH)
        """Most photos in one run of the network."""
        self.buckets: tuple[int, ...] = _buckets(self.max_batch) if on_gpu else ()
        """The batch sizes a GPU is given, smaller batches being padded: each new one costs it a slow first run."""
        self._session = session
        self._graph = graph

    @classmethod
    def open(
        cls, path: Path, *, device: Device = "auto", threads: int | None = None, max_batch: int | None = None
    ) -> Self:
        """Reads and verifies a bundle. `auto` is CUDA where that works, else the CPU; `threads` are the CPU's.

        Raises ArtifactError naming the file that is wrong, or DeviceError.
        """
        info = bundle.read(path)
        graph = path / bundle.GRAPH
        runtime = _Runtime(graph, info.input_size, threads or cores(), max_batch or _GPU_BATCH)
        session = runtime.auto() if device == "auto" else runtime.session(device)
        _check_contract(session, info, graph)
        model = cls(session, info, graph, max_batch)
        _log.info("model", extra={"model": info.name, "fingerprint": info.fingerprint, "provider": model.provider})
        return model

    def embed(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings (N, dimension) of N photos (size, size, 3), run `max_batch` at a time."""
        if not len(pixels):
            return np.empty((0, self.info.dimension), np.float32)
        starts = range(0, len(pixels), self.max_batch)
        return np.concatenate([self._run(np.asarray(pixels[start : start + self.max_batch])) for start in starts])

    def warm_up(self) -> None:
        """Runs every batch size once. Raises ArtifactError if what comes out are no embeddings."""
        side = self.info.input_size
        for count in self.buckets or (1,):
            if not np.isfinite(self._run(np.zeros((count, side, side, 3), np.uint8))).all():
                raise ArtifactError(self._graph, "does not give finite numbers for a black photo")

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, size, size, 3) to (N, dimension), N <= max_batch. Raises ArtifactError if the graph gives another shape."""
        size = next((bucket for bucket in self.buckets if bucket >= len(batch)), len(batch))
        padded = np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), np.uint8)])
        embeddings: NDArray[np.float32] = self._session.run(["embeddings"], {"images": padded})[0]
        expected = (size, self.info.dimension)
        if embeddings.shape != expected:
            raise ArtifactError(self._graph, f"gives embeddings {embeddings.shape}, not {expected} as `dimension` says")
        return embeddings[: len(batch)]


def _buckets(most: int) -> tuple[int, ...]:
    """Powers of two up to `most`, and `most`: at worst half of a batch is padding."""
    return (*(1 << power for power in range((most - 1).bit_length())), most)


class _Runtime:
    """onnxruntime, set up for one graph."""

    def __init__(self, graph: Path, input_size: int, threads: int, max_batch: int) -> None:
        wheels.check_one_of("onnxruntime", "onnxruntime-gpu")
        try:
            import onnxruntime  # noqa: PLC0415 (reading a bundle needs none, and its absence deserves a better message)
        except ImportError as error:
            raise DeviceError(f"onnxruntime can't be imported: {error}. Install vmmr[cpu] or vmmr[gpu]") from error
        onnxruntime.disable_telemetry_events()
        self._onnxruntime = onnxruntime
        self._graph = graph
        self._threads = threads
        self._available: Sequence[str] = onnxruntime.get_available_providers()
        self._providers = _providers(input_size, max_batch)

    def auto(self) -> Any:
        if _CUDA in self._available:
            try:
                return self.session("cuda")
            except DeviceError as error:
                _log.warning("running on the CPU", extra={"error": str(error)})
        return self.session("cpu")

    def session(self, device: Device) -> Any:
        """An InferenceSession of which every node runs on the device."""
        providers = self._providers[device]
        if missing := [name for name in providers if name not in self._available]:
            raise DeviceError(
                f"device {device}: this onnxruntime has no {missing[0]}. Install vmmr[gpu], not vmmr[cpu]"
            )
        if device != "cpu":
            self._onnxruntime.preload_dlls()
        session = self._open(device, providers)
        if session.get_providers()[0] != next(iter(providers)):
            raise DeviceError(f"device {device}: onnxruntime fell back to {', '.join(session.get_providers())}")
        return session

    def _open(self, device: Device, providers: Mapping[str, Mapping[str, str]]) -> Any:
        options = self._options(device)
        try:
            return self._onnxruntime.InferenceSession(
                str(self._graph), options, list(providers), list(providers.values()), enable_fallback=0
            )
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            if device == "cpu":
                raise ArtifactError(self._graph, f"onnxruntime can't load it: {error}") from error
            raise DeviceError(
                f"device {device}: onnxruntime can't run {self._graph} on it. Is there a GPU, with its driver and "
                f"libraries? {error}"
            ) from error

    def _options(self, device: Device) -> Any:
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Threads that spin between runs take the processor from those that decode photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Weights in files beside the graph would not be in its fingerprint. Where no folder is, none are found.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self._graph))
        if device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options


def _providers(input_size: int, max_batch: int) -> Mapping[Device, Mapping[str, Mapping[str, str]]]:
    """The execution providers of each device, most wanted first, and their options."""
    # The default, EXHAUSTIVE, times every convolution algorithm on the first run of each batch size: seconds each.
    cuda = {"cudnn_conv_algo_search": "HEURISTIC"}
    shapes = {"min": 1, "opt": max_batch, "max": max_batch}
    # One engine for all batch sizes, rather than one built, for minutes, whenever a larger batch comes.
    tensorrt = {
        f"trt_profile_{bound}_shapes": f"images:{count}x{input_size}x{input_size}x3" for bound, count in shapes.items()
    }
    return {"cpu": {_CPU: {}}, "cuda": {_CUDA: cuda}, "tensorrt": {_TENSORRT: tensorrt, _CUDA: cuda}}


def _check_contract(session: Any, info: BundleInfo, graph: Path) -> None:
    """Raises ArtifactError unless the graph's input and output are those of `embedder_svc.bundle`."""
    inputs, outputs = _signature(session.get_inputs()), _signature(session.get_outputs())
    side = info.input_size
    if inputs != [("images", "tensor(uint8)", (None, side, side, 3))]:
        raise ArtifactError(graph, f"its input must be `images`, uint8 (N, {side}, {side}, 3), it has {inputs}")
    width = outputs[0][2][-1:]  # of which a graph need not tell anything
    named = [output[:2] for output in outputs] == [("embeddings", "tensor(float)")]
    if not named or width not in ((info.dimension,), (None,), ()):
        raise ArtifactError(graph, f"its output must be `embeddings`, float32 (N, {info.dimension}), it has {outputs}")


def _signature(values: Sequence[Any]) -> list[tuple[str, str, tuple[int | None, ...]]]:
    """Name, type and shape of inputs or outputs; None is a side of any length."""
    return [
        (value.name, value.type, tuple(side if isinstance(side, int) else None for side in value.shape))
        for value in values
    ]
