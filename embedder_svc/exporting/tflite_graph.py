"""A TensorFlow Lite model as an ONNX graph: the seven operators that a MobileNet detector is made of, and no others.

TensorFlow keeps pixels as (N, height, width, channels), ONNX convolves (N, channels, height, width): the graph is transposed once
at its beginning, and before each reshape of what comes out of a convolution, which is where the order shows. Weights in float16
stay so, with a cast before they are used.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import tflite
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from svckit.cli import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_OPSET = 13
_DTYPES = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16}
_INPUT = "image"


def convert(content: bytes) -> onnx.ModelProto:
    """Return the graph from `image` (N, height, width, 3) to outputs that are named after the model's own.

    Raise CommandError if the model has an operator that is not known here.
    """
    reader = _Converter(tflite.Model.GetRootAsModel(content, 0))
    made = helper.make_model(reader.graph(), opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(made)
    return made


class _Converter:
    """Goes through a model's operators in order, and collects nodes and weights."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._source = model.Subgraphs(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, TensorProto] = {}
        self._halves: dict[int, NDArray[Any]] = {}  # weights in float16, by the tensor that a DEQUANTIZE makes of them
        self._channels_first: set[int] = set()
        self._convert: Mapping[int, Callable[[Any, list[int], int], None]] = {
            tflite.BuiltinOperator.DEQUANTIZE: self._dequantize,
            tflite.BuiltinOperator.CONV_2D: self._conv,
            tflite.BuiltinOperator.DEPTHWISE_CONV_2D: self._depthwise_conv,
            tflite.BuiltinOperator.ADD: self._add,
            tflite.BuiltinOperator.RESHAPE: self._reshape,
            tflite.BuiltinOperator.CONCATENATION: self._concatenate,
        }

    def graph(self) -> onnx.GraphProto:
        (begin,) = self._source.InputsAsNumpy()
        self._node("Transpose", [_INPUT], int(begin), perm=[0, 3, 1, 2])
        self._channels_first.add(int(begin))
        for number in range(self._source.OperatorsLength()):
            self._operator(self._source.Operators(number))
        outputs = [int(output) for output in self._source.OutputsAsNumpy()]
        for output in outputs:
            self._nodes.append(helper.make_node("Identity", [_name(output)], [self._output_name(output)]))
        return helper.make_graph(
            self._nodes,
            "detector",
            [helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, ["n", *self._shape(int(begin))[1:]])],
            [
                helper.make_tensor_value_info(
                    self._output_name(output), TensorProto.FLOAT, ["n", *self._shape(output)[1:]]
                )
                for output in outputs
            ],
            list(self._weights.values()),
        )

    def _operator(self, operator: Any) -> None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # small codes are in the older field alone
        if kind not in self._convert:
            raise CommandError(f"the TensorFlow Lite model has operator {kind}, which is not known here")
        self._convert[kind](operator, [int(i) for i in operator.InputsAsNumpy()], int(operator.OutputsAsNumpy()[0]))

    def _dequantize(self, _: Any, inputs: list[int], output: int) -> None:
        self._halves[output] = self._value(inputs[0])

    def _conv(self, operator: Any, inputs: list[int], output: int) -> None:
        kernel = self._value(inputs[1]).transpose(0, 3, 1, 2)
        self._convolution(_options(tflite.Conv2DOptions, operator), inputs, output, kernel, groups=1)

    def _depthwise_conv(self, operator: Any, inputs: list[int], output: int) -> None:
        kernel = self._value(inputs[1]).transpose(3, 0, 1, 2)
        options = _options(tflite.DepthwiseConv2DOptions, operator)
        self._convolution(options, inputs, output, kernel, groups=len(kernel))

    def _convolution(self, options: Any, inputs: list[int], output: int, kernel: NDArray[Any], *, groups: int) -> None:
        sides, strides = kernel.shape[2:], (options.StrideH(), options.StrideW())
        same = options.Padding() == tflite.Padding.SAME
        pads = _pads(self._shape(inputs[0])[1:3], sides, strides) if same else [0, 0, 0, 0]
        names = [_name(inputs[0]), self._weight(inputs[1], kernel), self._weight(inputs[2], self._value(inputs[2]))]
        attributes: dict[str, Any] = {"kernel_shape": sides, "strides": strides, "pads": pads, "group": groups}
        activation = options.FusedActivationFunction()
        if activation not in (tflite.ActivationFunctionType.NONE, tflite.ActivationFunctionType.RELU6):
            raise CommandError(f"the TensorFlow Lite model has activation {activation}, which is not known here")
        self._channels_first.add(output)
        if activation == tflite.ActivationFunctionType.NONE:
            self._node("Conv", names, output, **attributes)
            return
        plain = f"{_name(output)}_plain"
        self._nodes.append(helper.make_node("Conv", names, [plain], name=f"Conv_{plain}", **attributes))
        bounds = [self._constant("zero", np.float32(0)), self._constant("six", np.float32(6))]
        self._node("Clip", [plain, *bounds], output)

    def _add(self, _: Any, inputs: list[int], output: int) -> None:
        self._node("Add", [_name(i) for i in inputs], output)
        self._channels_first.add(output)

    def _reshape(self, _: Any, inputs: list[int], output: int) -> None:
        value = _name(inputs[0])
        if inputs[0] in self._channels_first:
            value = f"{_name(output)}_channels_last"
            transposed = helper.make_node("Transpose", [_name(inputs[0])], [value], perm=[0, 2, 3, 1])
            self._nodes.append(transposed)
        shape = np.array([0, *self._shape(output)[1:]], np.int64)  # 0 keeps the number of photos
        self._node("Reshape", [value, self._constant(f"{_name(output)}_shape", shape)], output)

    def _concatenate(self, operator: Any, inputs: list[int], output: int) -> None:
        axis = _options(tflite.ConcatenationOptions, operator).Axis()
        self._node("Concat", [_name(i) for i in inputs], output, axis=axis)

    def _node(self, kind: str, inputs: list[str], output: int, **attributes: Any) -> None:
        name = _name(output)
        self._nodes.append(helper.make_node(kind, inputs, [name], name=f"{kind}_{name}", **attributes))

    def _value(self, tensor: int) -> NDArray[Any]:
        """Return a weight; in float16 if the model keeps it so."""
        if tensor in self._halves:
            return self._halves[tensor]
        described = self._source.Tensors(tensor)
        content = self._model.Buffers(described.Buffer()).DataAsNumpy().tobytes()
        return np.frombuffer(content, _DTYPES[described.Type()]).reshape(self._shape(tensor))

    def _weight(self, tensor: int, value: NDArray[Any]) -> str:
        """Add a weight, and return the name under which it is found as float32."""
        name = f"w{tensor}"
        if value.dtype != np.float16:
            return self._constant(name, value)
        half = self._constant(f"{name}_half", value)
        self._nodes.append(helper.make_node("Cast", [half], [name], name=f"Cast_{name}", to=TensorProto.FLOAT))
        return name

    def _constant(self, name: str, value: Any) -> str:
        self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name

    def _shape(self, tensor: int) -> list[int]:
        shape = self._source.Tensors(tensor).ShapeAsNumpy()
        return [int(side) for side in shape] if self._source.Tensors(tensor).ShapeLength() else []

    def _output_name(self, tensor: int) -> str:
        """Return the last word of an output's name that names it: `raw_outputs/box_encodings` is `box_encodings`."""
        name: str = self._source.Tensors(tensor).Name().decode()
        return name.rpartition("/")[2]


def _name(tensor: int) -> str:
    return f"t{tensor}"


def _options(kind: Any, operator: Any) -> Any:
    options, table = kind(), operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def _pads(size: list[int], kernel: tuple[int, ...], strides: tuple[int, int]) -> list[int]:
    """Return TensorFlow's padding SAME, begins before ends: outputs are ceil(size / stride), and an odd pixel goes to the end."""
    extra = [
        max((-(-side // stride) - 1) * stride + reach - side, 0)
        for side, reach, stride in zip(size, kernel, strides, strict=True)
    ]
    return [each // 2 for each in extra] + [each - each // 2 for each in extra]
