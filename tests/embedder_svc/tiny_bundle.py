"""Writes a model bundle small enough for tests, with real ONNX graphs: `python tiny_bundle.py DIRECTORY [--detector]`.

The network: one strided convolution, ReLU, one matrix, unit length; seeded weights. Different photos get different embeddings.

The detector looks at a photo as 4 x 4 fields. A red field is a car, its score is how much redder than green the field is on average.
"""

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from embedder_svc.network import bundle
from embedder_svc.network.cars import DetectorInfo

_STRIDE = 8
_CHANNELS = 4


FIELDS = 4
DETECTOR = {
    "name": "tiny-red",
    "source": "made by hand",
    "licence": "none",
    "input_size": 32,
    "threshold": 0.35,
    "overlap": 0.5,
    "margin": 0.0,
    "whole_from": 0.8,
    "max_cars": 5,
    "size_weight": 0.25,
    "centre_weight": 2.0,
}


def make(path, *, input_size=32, dimension=16, seed=0, detector=None, **fields):
    """Writes the bundle; returns its BundleInfo. `fields` override those of BundleInfo, and `detector`, if given, those of DETECTOR."""
    described = {
        "name": "tiny",
        "resize": "squash",
        "precision": "fp32",
        "normalized": True,
        "source": "random weights",
        "licence": "none",
        "training_data": "none",
    } | fields
    onnx = graph(input_size, dimension, seed).SerializeToString()
    described |= {"input_size": input_size, "dimension": dimension}
    if detector is None:
        return bundle.write(Path(path), onnx, **described)
    info = DetectorInfo(**DETECTOR | detector)
    return bundle.write(
        Path(path), onnx, detector_graph(info.input_size).SerializeToString(), detector=info, **described
    )


def detector_graph(side):
    """The detector's graph for an input of this side."""
    edges = np.arange(FIELDS) / FIELDS
    left, top = (edge.ravel() for edge in np.meshgrid(edges, edges))  # row by row, as the pooled fields are
    boxes = np.stack([left, top, left + 1 / FIELDS, top + 1 / FIELDS], axis=1)[None]  # (1, 16, 4)
    constants = {
        "redness": np.array([1 / 255, -1 / 255, 0]).reshape(1, 3, 1, 1),
        "fields": boxes,
        "nothing": np.float32(0),
        "all": np.float32(1),
    }
    integers = {"flat": [0, FIELDS * FIELDS], "fields_shape": boxes.shape[1:], "zero": [0], "one": [1]}
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "redness"], ["red"]),
        helper.make_node(
            "AveragePool", ["red"], ["pooled"], kernel_shape=[side // FIELDS] * 2, strides=[side // FIELDS] * 2
        ),
        helper.make_node("Reshape", ["pooled", "flat"], ["signed"]),
        helper.make_node("Clip", ["signed", "nothing", "all"], ["scores"]),
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
        helper.make_node("Concat", ["count", "fields_shape"], ["boxes_shape"], axis=0),
        helper.make_node("Expand", ["fields", "boxes_shape"], ["boxes"]),
    ]
    weights = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    weights += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in integers.items()]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "tiny-red",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", side, side, 3])],
            [
                helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", FIELDS * FIELDS, 4]),
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", FIELDS * FIELDS]),
            ],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def graph(input_size, dimension, seed):
    rng = np.random.default_rng(seed)
    side = input_size // _STRIDE
    weights = {
        "scale": np.float32(1 / 127.5),
        "shift": np.float32(1),
        "kernel": 0.2 * rng.standard_normal((_CHANNELS, 3, _STRIDE, _STRIDE)),
        "bias": np.ones(_CHANNELS),
        "matrix": rng.standard_normal((_CHANNELS * side * side, dimension)),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["normal"]),
        helper.make_node("Transpose", ["normal"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["features"], strides=[_STRIDE, _STRIDE]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("Flatten", ["active"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["embeddings"], axis=1, p=2),
    ]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", input_size, input_size, 3])],
            [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", dimension])],
            [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


if __name__ == "__main__":
    make(sys.argv[1], detector={} if "--detector" in sys.argv else None)
