"""Weights read back from the graph of a model bundle: of a model whose checkpoint is gone, or never was here.

Export folds each batch norm into the convolution before it. Here it becomes one that only adds the bias: the network computes what the graph
does, but training it wants norms that know what comes to them (training/norms.py).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from embedder_svc.exporting.traits import PIXELS, Traits
from embedder_svc.network import bundle
from svckit.cli import CommandError

Values = NDArray[np.float32]

_PREFIX = "network."
_STRIDED = "layer2.0.conv1"
"""The convolution whose stride tells the variants of ResNet-50 apart."""
_EPS = Traits.eps


def read(folder: Path) -> tuple[Mapping[str, Tensor], Traits, str]:
    """Return the state of the network in a bundle, without a projection or a head, its traits and its source.

    Raise CommandError if it is no ResNet-50 in torchvision's layout, or ArtifactError if the bundle is not whole.
    """
    info = bundle.read(folder)
    graph = _Graph(onnx.load(folder / bundle.GRAPH).graph)
    convolutions = {graph.name(node).removeprefix(_PREFIX): node for node in graph.of("Conv")}
    if _STRIDED not in convolutions or graph.of("BatchNormalization"):
        raise CommandError(
            f"{folder}: is no ResNet-50 in torchvision's layout, whose batch norms are in its convolutions"
        )
    pixels = _pixels(folder, graph)
    state: dict[str, Tensor] = {}
    for name, node in convolutions.items():
        weight = graph.value(node.input[1])
        bias = graph.value(node.input[2]) if len(node.input) > 2 else np.zeros(len(weight), np.float32)
        if name == "conv1" and not graph.of("Gather") and PIXELS[pixels].bgr:
            weight = weight[:, ::-1]  # the order of the channels is in these weights (exporting/pixels.py)
        state[f"{name}.weight"] = torch.from_numpy(weight.copy())
        state |= _norm(_norm_after(name), torch.from_numpy(bias.copy()))
    traits = Traits(
        strides="v1" if graph.strides(convolutions[_STRIDED]) == [2, 2] else "v1.5",
        eps=_EPS,
        pixels=pixels,
        resize=info.resize,
        input_size=info.input_size,
        licence=info.licence,
        training_data=info.training_data,
    )
    return state, traits, f"{info.name} {info.fingerprint[:12]}"


class _Graph:
    """A graph's nodes, and the values of its weights."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = list(graph.node)
        self._weights = {weight.name: weight for weight in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}

    def of(self, kind: str) -> list[onnx.NodeProto]:
        """Return the nodes of that kind, in order."""
        return [node for node in self._nodes if node.op_type == kind]

    def name(self, convolution: onnx.NodeProto) -> str:
        """Return the name of the module that it was."""
        weight = self._stored(convolution.input[1])
        return weight.partition(".weight")[0]

    def value(self, name: str) -> Values:
        """Return a weight in float32, however it is stored."""
        maker = self._makers.get(name)
        if maker is None:
            return np.asarray(numpy_helper.to_array(self._weights[name]), np.float32)
        if maker.op_type == "Cast":
            return self.value(maker.input[0])
        assert maker.op_type == "DequantizeLinear", maker.op_type
        values, scale, zero = (self.value(each) for each in maker.input)
        shape = (-1, *[1] * (values.ndim - 1)) if scale.ndim else ()
        return np.asarray((values - zero.reshape(shape)) * scale.reshape(shape), np.float32)

    def constants(self, node: onnx.NodeProto) -> Iterable[Values]:
        """Yield the weights among its inputs."""
        return (self.value(name) for name in node.input if name in self._weights)

    def strides(self, convolution: onnx.NodeProto) -> list[int]:
        return next(list(each.ints) for each in convolution.attribute if each.name == "strides")

    def _stored(self, name: str) -> str:
        while name in self._makers:
            name = self._makers[name].input[0]
        return name


def _pixels(folder: Path, graph: _Graph) -> str:
    """Return the key of PIXELS by which the graph normalises photos."""
    (mean,) = graph.constants(graph.of("Sub")[0])
    # One of each channel, or of a row of pixels, in the order of photos.
    order = slice(None) if graph.of("Gather") else slice(None, None, -1)
    for name, norm in PIXELS.items():
        expected = np.array(norm.mean) / norm.scale
        if np.allclose(mean[:3], expected[order] if norm.bgr else expected, rtol=1e-5):
            return name
    raise CommandError(f"{folder}: normalises pixels in a way that no known weights do, it takes {mean[:3]} off them")


def _norm_after(convolution: str) -> str:
    """Return the name of the batch norm after a convolution."""
    block, _, name = convolution.rpartition(".")
    return f"{block}.{name.replace('conv', 'bn')}".lstrip(".") if "conv" in name else f"{block}.1"


def _norm(name: str, bias: Tensor) -> dict[str, Tensor]:
    """Return the parameters of a batch norm that only adds this."""
    ones = torch.ones_like(bias)
    values = {"weight": ones, "bias": bias, "running_mean": 0 * ones, "running_var": (1 - _EPS) * ones}
    return {f"{name}.{parameter}": value for parameter, value in values.items()}
