"""Writes a model bundle small enough for tests, with a real ONNX graph: `python tiny_bundle.py DIRECTORY`.

One strided convolution, ReLU, one matrix, unit length; seeded weights. Different photos get different embeddings.
"""

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from embedder_svc.network import bundle

_STRIDE = 8
_CHANNELS = 4


def make(path, *, input_size=32, dimension=16, seed=0, **fields):
    """Writes the bundle; returns its BundleInfo. `fields` override those of BundleInfo."""
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
    return bundle.write(Path(path), onnx, input_size=input_size, dimension=dimension, **described)


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
    make(sys.argv[1])
