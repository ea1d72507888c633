"""A single-shot detector as the graph `detector.onnx` of a model bundle: from 8-bit photos to boxes and scores.

The detector comes as an SSD that gives an encoded box and a logit a class for each of its anchors, which `npm_detector` makes.
Decoding is appended to its graph, so that the fingerprint covers it, and no code outside knows of anchors. Liu et al., "SSD: Single
Shot MultiBox Detector", ECCV 2016; the settings are those of MediaPipe's published configuration.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from svckit.cli import CommandError

_STRIDES = (16, 32, 64, 128, 256, 512)
_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
_FIRST_SHAPES = ((1.0, 0.1), (2.0, 0.2), (0.5, 0.2))
_CENTRE_SCALE, _SIZE_SCALE = 10.0, 5.0

_CLASSES = 24
_CAR = 23
"""The class "Car". "Vehicle", class 18, finds none that this does not: docs/embedder.md has the measurement."""


def anchors(side: int) -> NDArray[np.float64]:
    """Return the anchors (A, 4) of an input of this side: centre x, centre y, width and height, as fractions of the photo."""
    return np.array(
        [box for number, stride in enumerate(_STRIDES) for box in _of_map(number, math.ceil(side / stride))]
    )


def served(detector: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph from `images`, uint8 (N, side, side, 3), to `boxes` (N, A, 4) and `scores` (N, A), float32.

    Boxes are left, top, right, bottom, as fractions of the photo, and may reach outside it; scores are 0 to 1, for being a car.
    Raise CommandError if it is no detector of the form that is expected.
    """
    boxes = anchors(side(detector))
    size = side(detector)
    made = helper.make_graph(
        _named([*_pixel_nodes(), *detector.graph.node, *_box_nodes(), *_score_nodes()]),
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", len(boxes), 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", len(boxes)]),
        ],
        [
            *detector.graph.initializer,
            *(numpy_helper.from_array(value, name) for name, value in _constants(boxes).items()),
        ],
    )
    whole = helper.make_model(made, opset_imports=detector.opset_import, ir_version=detector.ir_version)
    onnx.checker.check_model(whole)
    return whole


def side(detector: onnx.ModelProto) -> int:
    """Return the side of the detector's input. Raise CommandError unless inputs and outputs are as expected."""
    shapes = {value.name: _shape(value) for value in (*detector.graph.input, *detector.graph.output)}
    size = (*shapes.get("image", ()), 0, 0)[1]
    count = len(anchors(size)) if size else 0
    expected = {
        "image": (0, size, size, 3),
        "box_encodings": (0, count, 4),
        "class_predictions": (0, count, _CLASSES),
    }
    if shapes != expected:
        raise CommandError(
            f"a detector has the input `image` (N, S, S, 3) and the outputs `box_encodings` (N, A, 4) and `class_predictions` "
            f"(N, A, {_CLASSES}), with the A anchors of a side S; this one has {shapes}"
        )
    return size


def with_folded_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with float32 weights in place of those that are stored in float16 and cast: the quantiser reads no others."""
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    weights = {weight.name: weight for weight in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights]
    for cast in casts:
        weight = weights[cast.input[0]]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), cast.output[0]))
        graph.node.remove(cast)
    return folded


def first_layer(model: onnx.ModelProto) -> list[str]:
    """Return the names of the first convolution, and of the activation after it. On three channels int8 is slower than float32."""
    nodes = model.graph.node
    return [next(node.name for node in nodes if node.op_type == kind) for kind in ("Conv", "Clip")]


def _of_map(number: int, cells: int) -> Iterator[tuple[float, float, float, float]]:
    """Yield the anchors of one map of features: cells by rows, in each cell one anchor a shape."""
    shapes = _shapes(number)
    for row in range(cells):
        for column in range(cells):
            for width, height in shapes:
                yield (column + 0.5) / cells, (row + 0.5) / cells, width, height


def _shapes(number: int) -> list[tuple[float, float]]:
    """Return width and height of the anchors in each cell of a map."""
    scale, following = (min(0.2 + 0.75 * i / (len(_STRIDES) - 1), 1.0) for i in (number, number + 1))
    further = ((1.0, math.sqrt(scale * following)),)
    pairs = _FIRST_SHAPES if number == 0 else tuple((ratio, scale) for ratio in _RATIOS) + further
    return [(size * math.sqrt(ratio), size / math.sqrt(ratio)) for ratio, size in pairs]


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(side.dim_value for side in value.type.tensor_type.shape.dim)


def _named(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes with a name each, which the quantiser tells them apart by."""
    return [
        helper.make_node(node.op_type, node.input, node.output, name=f"{node.op_type}_{i}", **_attributes(node))
        for i, node in enumerate(nodes)
    ]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _pixel_nodes() -> list[onnx.NodeProto]:
    """From 0 to 255 to -1 to 1."""
    return [
        helper.make_node("Cast", ["images"], ["car_floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["car_floats", "car_scale"], ["car_scaled"]),
        helper.make_node("Sub", ["car_scaled", "car_one"], ["image"]),
    ]


def _box_nodes() -> list[onnx.NodeProto]:
    """From encodings (y, x, height, width) relative to the anchors, to left, top, right, bottom."""
    make = helper.make_node
    return [
        make("Gather", ["box_encodings", "car_centre_columns"], ["car_moves"], axis=2),
        make("Gather", ["box_encodings", "car_size_columns"], ["car_growths"], axis=2),
        make("Mul", ["car_moves", "car_centre_factor"], ["car_offsets"]),
        make("Add", ["car_offsets", "car_centres"], ["car_middles"]),
        make("Mul", ["car_growths", "car_size_factor"], ["car_logs"]),
        make("Exp", ["car_logs"], ["car_factors"]),
        make("Mul", ["car_factors", "car_half_sizes"], ["car_halves"]),
        make("Sub", ["car_middles", "car_halves"], ["car_least"]),
        make("Add", ["car_middles", "car_halves"], ["car_most"]),
        make("Concat", ["car_least", "car_most"], ["boxes"], axis=2),
    ]


def _score_nodes() -> list[onnx.NodeProto]:
    make = helper.make_node
    return [
        make("Gather", ["class_predictions", "car_class"], ["car_logits"], axis=2),
        make("Sigmoid", ["car_logits"], ["scores"]),
    ]


def _constants(boxes: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    centres, sizes = boxes[:, :2], boxes[:, 2:]
    floats = {
        "car_scale": np.array(1 / 127.5),
        "car_one": np.array(1.0),
        "car_centre_factor": sizes / _CENTRE_SCALE,
        "car_centres": centres,
        "car_size_factor": np.array(1 / _SIZE_SCALE),
        "car_half_sizes": sizes / 2,
    }
    integers = {"car_centre_columns": [1, 0], "car_size_columns": [3, 2], "car_class": _CAR}
    return {name: value.astype(np.float32) for name, value in floats.items()} | {
        name: np.array(value, np.int64) for name, value in integers.items()
    }
