"""A graph in float16, for GPUs: half the size, and much faster on their matrix units.

Only the body of the network changes. The pixels' normalisation and the embedding's length stay float32: they are a thousandth
of the work, and the sum of 2048 squares overflows float16. So do batch norms that could not be folded into a convolution:
their running statistics may be too large for it. A projection of the features is as little work, but its matrix is large: it is
stored in float16, and run in float32.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from svckit.cli import CommandError

_BODY = ("Conv", "Relu", "Add", "MaxPool")
_MATRICES = ("Gemm", "MatMul")


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its body in float16; input and output keep their types. Raise CommandError if a weight is too large."""
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    weights = {weight.name: weight for weight in graph.initializer}
    edges = _Edges()
    for node in model.graph.node:
        half = node.op_type in _BODY
        names = [name if name in weights else edges.read(name, half=half) for name in node.input]
        if half:
            for name in weights.keys() & set(names):
                _halve(weights[name])
        edges.add(node, names, half=half)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(edges.nodes)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def with_stored_matrices(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with the weights of matrix products stored in float16. Raise CommandError if one is too large for it."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    weights = {weight.name: weight for weight in changed.graph.initializer}
    used = {name for node in changed.graph.node if node.op_type in _MATRICES for name in node.input}
    for name in sorted(name for name in weights.keys() & used if len(weights[name].dims) > 1):  # a bias stays as it is
        _halve(weights[name])
        weights[name].name = f"{name}_half"
        cast = helper.make_node("Cast", [f"{name}_half"], [name], name=f"cast_{name}", to=TensorProto.FLOAT)
        changed.graph.node.insert(0, cast)
    return changed


class _Edges:
    """The nodes of the new graph, as they are added, with a cast wherever a value passes between the body and the rest."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._half: set[str] = set()
        self._cast: set[str] = set()

    def read(self, name: str, *, half: bool) -> str:
        """Return the name under which a node finds a value in the node's precision; add a cast if there is none yet."""
        if not name or (name in self._half) == half:
            return name
        to, suffix = (TensorProto.FLOAT16, "half") if half else (TensorProto.FLOAT, "float")
        copy = f"{name}_{suffix}"
        if copy not in self._cast:
            self._cast.add(copy)
            self.nodes.append(helper.make_node("Cast", [name], [copy], name=f"cast_{copy}", to=to))
        return copy

    def add(self, node: onnx.NodeProto, inputs: list[str], *, half: bool) -> None:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = inputs
        self.nodes.append(changed)
        if half:
            self._half.update(node.output)


def _halve(weight: TensorProto) -> None:
    """Convert a weight to float16, in place, unless it is already: two nodes may read it."""
    if weight.data_type == TensorProto.FLOAT16:
        return
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(weight).astype(np.float16)
    if not np.isfinite(values).all():
        raise CommandError(f"{weight.name} has values too large for float16: export it with --precision fp32")
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
