"""The car detector that MediaPipe Objectron ships in the npm registry: SSD MobileNetV2, trained on Open Images v4 (Apache-2.0).

Its package holds a TensorFlow Lite model among the assets of a web page; `tflite_graph` makes an ONNX graph of it.
"""

import io
import tarfile

import onnx

from embedder_svc.exporting import npm
from svckit.cli import CommandError
from svckit.extras import needing

SOURCE = "npm:@mediapipe/objectron@0.4.1675468480"
SHA256 = "fc3e37b326b05e8f596099c90b3e0931b05a56cd3160b9ac450b621794bac94c"
LICENCE = "Apache-2.0"

_MEMBER, _PLACE = "package/objectron_solution_packed_assets.data", slice(184, 9_987_912)


def fetch() -> onnx.ModelProto:
    """Download the package, verify its sha256, and return its detector. Raise CommandError."""
    with needing("train", CommandError):
        from embedder_svc.exporting import tflite_graph  # noqa: PLC0415 (it imports tflite, which nothing else needs)

    return tflite_graph.convert(model_of(npm.fetch(SOURCE, SHA256)))


def model_of(package: bytes) -> bytes:
    """Return the TensorFlow Lite model in the package. Nothing is unpacked to the disk."""
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        file = archive.extractfile(_MEMBER)
        assert file is not None, _MEMBER
        return file.read()[_PLACE]
