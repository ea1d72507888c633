"""onnxruntime, set up for one graph, on the device that was asked for and on no other."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from embedder_svc.network import arithmetic
from embedder_svc.network.bound_session import BoundSession, Place
from svckit import wheels
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from svckit.extras import install

_log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
DEVICES: tuple[str, ...] = get_args(Device)

CPU = "CPUExecutionProvider"
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"

_DEVICES = Path("/dev")
# Device files of Linux's driver, of which a container may see any number, and of Windows' driver in WSL.
_GPUS = ("nvidia[0-9]*", "dxg")


def on_gpu(device: Device, devices: Path = _DEVICES) -> bool:
    """Return whether the device is a GPU; for `auto`, whether one seems to be there, with an onnxruntime that can use it."""
    if device != "auto":
        return device != "cpu"
    return wheels.installed("onnxruntime-gpu") and any(any(devices.glob(name)) for name in _GPUS)


class DeviceError(CommandError):
    """The device that was asked for can't be used."""


class Runtime:
    """Opens sessions on one graph. Its methods raise DeviceError, or ArtifactError naming the graph."""

    def __init__(self, graph: Path, *, input_size: int, max_batch: int) -> None:
        wheels.check_one_of("onnxruntime", "onnxruntime-gpu")
        try:
            import onnxruntime  # noqa: PLC0415 (reading a bundle needs none, and its absence deserves a better message)
        except ImportError as error:
            raise DeviceError(
                f"onnxruntime can't be imported: {error}. Install cpu or gpu: {install('cpu')}; or '.[gpu]'"
            ) from error
        onnxruntime.disable_telemetry_events()
        self._onnxruntime = onnxruntime
        self._graph = graph
        self._input_size = input_size
        self._available: Sequence[str] = onnxruntime.get_available_providers()
        self._providers = _providers(input_size, max_batch)
        self.int8 = arithmetic.int8_arithmetic()
        """The arithmetic of int8 models on the CPU."""

    def session(self, device: Device, threads: int) -> Any:
        """Return an InferenceSession of which every node runs on the device; `auto` is CUDA where it works, else the CPU.

        On a CPU each run takes `threads` threads.
        """
        if device == "auto":
            return self._auto(threads)
        providers = self._providers[device]
        if missing := [name for name in providers if name not in self._available]:
            raise DeviceError(
                f"device {device}: this onnxruntime has no {missing[0]}. Install gpu, not cpu: {install('gpu')}"
            )
        if device != "cpu":
            self._onnxruntime.preload_dlls()
        session = self._open(device, threads, providers)
        if session.get_providers()[0] != next(iter(providers)):
            raise DeviceError(f"device {device}: onnxruntime fell back to {', '.join(session.get_providers())}")
        return session

    def bound(self, session: Any, *, sizes: Sequence[int], dimension: int) -> BoundSession:
        """Return a BoundSession that runs the session on buffers of its device, for these batch sizes."""
        place: Place = "cpu" if session.get_providers()[0] == CPU else "cuda"
        side = self._input_size
        try:
            return BoundSession(self._onnxruntime, session, sizes=sizes, side=side, dimension=dimension, place=place)
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise DeviceError(
                f"device {place}: onnxruntime can't give it buffers for {max(sizes)} photos: {error}"
            ) from error

    def _auto(self, threads: int) -> Any:
        if _CUDA in self._available:
            try:
                return self.session("cuda", threads)
            except DeviceError as error:
                _log.warning("running on the CPU", extra={"error": str(error)})
        return self.session("cpu", threads)

    def _open(self, device: Device, threads: int, providers: Mapping[str, Mapping[str, str]]) -> Any:
        options = self._options(device, threads)
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

    def _options(self, device: Device, threads: int) -> Any:
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin between runs take the processor from those that decode photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # See `arithmetic`. With sums that overflow, embeddings of the model that ships had a cosine of 0.97 (at worst 0.85) to
        # those of its gallery. With VNNI the option would double the time, and change nothing.
        if self.int8 not in arithmetic.VNNI:
            options.add_session_config_entry("session.x64quantprecision", "1")
        # Weights in files beside the graph would not be in its fingerprint. The graph is no folder, so none are found in it.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self._graph))
        if device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options


def _providers(input_size: int, max_batch: int) -> Mapping[Device, Mapping[str, Mapping[str, str]]]:
    """Return the execution providers of each device, in order of preference, and their options."""
    # The default, EXHAUSTIVE, times every convolution algorithm on the first run of each batch size, which takes seconds.
    cuda = {"cudnn_conv_algo_search": "HEURISTIC"}
    shapes = {"min": 1, "opt": max_batch, "max": max_batch}
    # One engine for all batch sizes: else TensorRT builds another, for minutes, whenever a larger batch comes.
    tensorrt = {
        f"trt_profile_{bound}_shapes": f"images:{count}x{input_size}x{input_size}x3" for bound, count in shapes.items()
    }
    return {"cpu": {CPU: {}}, "cuda": {_CUDA: cuda}, "tensorrt": {_TENSORRT: tensorrt, _CUDA: cuda}}
