"""A session that runs on buffers which are allocated and bound to it once, so that a GPU needs no new memory for each batch.

For each batch size there are an input and an output on the device. The photos of a batch are written into one host buffer,
page-locked where onnxruntime offers such memory: from there a GPU reads by itself, from any other the driver copies first.
On a CPU the same code runs in the CPU's own memory. It gains nothing there; but so tests can run it.
"""

import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Place = Literal["cpu", "cuda"]
"""The device that buffers are on, in onnxruntime's words; TensorRT's are on `cuda`."""


class BoundSession:
    """Runs of one session on bound buffers. The runs share the buffers, so a second thread waits for the first."""

    def __init__(
        self, onnxruntime: Any, session: Any, *, sizes: Sequence[int], side: int, dimension: int, place: Place
    ) -> None:
        """`sizes` are the batch sizes that the session is to be given, in any order."""
        host = _page_locked(onnxruntime) if place == "cuda" else None
        self.page_locked = host is not None
        empty = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._owner = empty((max(sizes), side, side, 3), np.uint8, memory_info=host)
        self._staged: NDArray[np.uint8] = self._owner.numpy()  # (largest size, side, side, 3)
        self._buckets = [
            _Bucket(session, empty((n, side, side, 3), np.uint8, place), empty((n, dimension), np.float32, place))
            for n in sorted(sizes)
        ]
        self._lock = threading.Lock()

    def run(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings (N, dimension), in memory of their own, of N photos (side, side, 3), N at most the largest size.

        The batch is filled up with black to the next size.
        """
        bucket = next(bucket for bucket in self._buckets if bucket.size >= len(pixels))
        with self._lock:
            batch = self._staged[: bucket.size]
            for row, photo in zip(batch, pixels, strict=False):
                row[:] = photo
            batch[len(pixels) :] = 0
            return bucket.run(batch)[: len(pixels)].copy()


class _Bucket:
    """The device's buffers for one batch size."""

    def __init__(self, session: Any, images: Any, embeddings: Any) -> None:
        self.size: int = images.shape()[0]
        self._session = session
        self._images = images
        self._embeddings = embeddings
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("images", images)
        self._binding.bind_ortvalue_output("embeddings", embeddings)

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (size, side, side, 3) to (size, dimension). On a CPU the result is the buffer itself, overwritten by the next run."""
        self._images.update_inplace(batch)
        self._session.run_with_iobinding(self._binding)  # returns when the device is done
        embeddings: NDArray[np.float32] = self._embeddings.numpy()
        return embeddings


def _page_locked(onnxruntime: Any) -> Any | None:
    """Return host memory that the GPU reads by itself, as an OrtMemoryInfo; None if this onnxruntime offers none."""
    kind = onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE
    places = (
        each.memory_info(kind) for each in onnxruntime.get_ep_devices() if each.ep_name == "CUDAExecutionProvider"
    )
    return next((place for place in places if place is not None), None)
