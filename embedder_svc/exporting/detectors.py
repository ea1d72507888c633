"""Detectors for model bundles: read from their source, brought into the form that is served, and described."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from embedder_svc.exporting import detector_graph, npm_detector, photos, quantize
from embedder_svc.exporting.photos import Photos
from embedder_svc.network.bundle import Precision
from embedder_svc.network.cars import DetectorInfo
from embedder_svc.photos import photo_files
from embedder_svc.photos.resize import Resize
from svckit.cli import CommandError

NPM = "npm:mediapipe-objectron"
NONE = "none"

_SETTINGS: dict[str, Any] = {
    "threshold": 0.35,
    "overlap": 0.5,
    "margin": 0.0,
    "whole_from": 0.95,
    "max_cars": 8,
    "size_weight": 0.25,
    "centre_weight": 2.0,
}
"""Settings of the detector; docs/embedder.md says how they were chosen, and bench/quality/detector.py measures them."""


@dataclass(frozen=True)
class Detector:
    """A detector as a bundle holds it."""

    onnx: bytes
    info: DetectorInfo


def load(name: str) -> "Source":
    """Read `npm:mediapipe-objectron`, or an .onnx file in the form that ../shared/weights/README.md describes. Raise CommandError."""
    if name == NPM:
        return Source(npm_detector.fetch(), NPM.removeprefix("npm:"), npm_detector.SOURCE, npm_detector.LICENCE)
    path = Path(name)
    if not path.is_file():
        raise CommandError(f"{name}: no such file; a detector is {NPM}, {NONE} or a file")
    try:
        return Source(onnx.load(path), path.stem, path.name, "unknown")
    except DecodeError as error:
        raise CommandError(f"{path}: no ONNX graph: {error}") from error


@dataclass(frozen=True)
class Source:
    """A detector as it was published."""

    graph: onnx.ModelProto
    name: str
    source: str
    licence: str

    @property
    def side(self) -> int:
        """Side of the input, in pixels. Raise CommandError if the graph is no such detector."""
        return detector_graph.side(self.graph)

    def made_for(self, precision: Precision, chosen: Photos | None) -> Detector:
        """Return the detector for a network of this precision: in int8 if that is. Raise CommandError if there is nothing to calibrate on."""
        if precision != "int8":
            return self.made()
        if chosen is None:
            raise CommandError("an int8 detector needs --calibration: whole photos such as the model will see")
        return self.made(
            photos.batches(chosen.calibration, photo_files.whole(Resize("squash", self.side)), "calibrate the detector")
        )

    def made(self, calibration: Iterable[NDArray[np.uint8]] | None = None) -> Detector:
        """Return the detector, in int8 if there are photos (N, side, side, 3) to calibrate it on. Raise CommandError."""
        graph = detector_graph.served(self.graph)
        if calibration is not None:
            folded = detector_graph.with_folded_casts(graph)
            graph = quantize.to_int8(folded, calibration, leaving=detector_graph.first_layer(folded))
        info = DetectorInfo(name=self.name, source=self.source, licence=self.licence, input_size=self.side, **_SETTINGS)
        return Detector(graph.SerializeToString(), info)
