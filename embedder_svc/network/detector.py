"""Pixels to cars: the detector of a model in memory. It runs beside the network, in lanes and batches of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedder_svc.network import cars
from embedder_svc.network.batches import buckets, filled_up, signature
from embedder_svc.network.cars import Car, DetectorInfo
from embedder_svc.network.runtime import CPU, Device, Runtime
from embedder_svc.photos.resize import Size
from svckit.artifact import ArtifactError


@dataclass(frozen=True)
class View:
    """A photo as the detector sees it: squashed to its input."""

    pixels: NDArray[np.uint8]
    """(side, side, 3)."""
    size: Size
    """The photo's own width and height."""


class Detector:
    """A detector in memory. `find` may be called from several threads."""

    def __init__(self, session: Any, info: DetectorInfo, graph: Path, *, lanes: int, max_batch: int) -> None:
        self.info = info
        self.lanes = lanes
        """The number of batches that are best run at once."""
        self.max_batch = max_batch
        """Most photos in one run."""
        self._buckets = () if session.get_providers()[0] == CPU else buckets(max_batch)
        self._session = session
        self._graph = graph

    @classmethod
    def open(cls, graph: Path, info: DetectorInfo, *, device: Device, lanes: int, max_batch: int) -> Self:
        """Load a verified graph, on the device that the network runs on. Raise ArtifactError naming the graph, or DeviceError."""
        session = Runtime(graph, input_size=info.input_size, max_batch=max_batch).session(device, threads=1)
        _check_contract(session, info, graph)
        return cls(session, info, graph, lanes=lanes, max_batch=max_batch)

    def find(self, views: Sequence[View]) -> list[list[Car]]:
        """Return the cars of 1 to `max_batch` photos, as `cars.find` orders them."""
        size = next((bucket for bucket in self._buckets if bucket >= len(views)), len(views))
        images = filled_up([view.pixels for view in views], size)
        boxes, scores = self._session.run(["boxes", "scores"], {"images": images})
        found = zip(views, boxes, scores, strict=False)
        return [cars.find(box, score, view.size, self.info) for view, box, score in found]

    def warm_up(self) -> None:
        """Run every batch size once. Raise ArtifactError if boxes or scores of a black photo are not finite."""
        side = self.info.input_size
        for count in self._buckets or (1,):
            images = np.zeros((count, side, side, 3), np.uint8)
            if not all(
                np.isfinite(output).all() for output in self._session.run(["boxes", "scores"], {"images": images})
            ):
                raise ArtifactError(self._graph, "does not give finite numbers for a black photo")


def _check_contract(session: Any, info: DetectorInfo, graph: Path) -> None:
    """Raise ArtifactError unless the graph's input and outputs are as `embedder_svc.network.bundle` says."""
    side = info.input_size
    inputs, outputs = signature(session.get_inputs()), signature(session.get_outputs())
    if inputs != [("images", "tensor(uint8)", (None, side, side, 3))]:
        raise ArtifactError(graph, f"its input must be `images`, uint8 (N, {side}, {side}, 3), it has {inputs}")
    count = outputs[0][2][1] if outputs and len(outputs[0][2]) == 3 else None
    if outputs != [("boxes", "tensor(float)", (None, count, 4)), ("scores", "tensor(float)", (None, count))]:
        raise ArtifactError(
            graph, f"its outputs must be `boxes`, float32 (N, A, 4), and `scores`, float32 (N, A), it has {outputs}"
        )
