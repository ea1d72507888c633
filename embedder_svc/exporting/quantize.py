"""A graph in int8, for CPUs: a quarter of the size, and three to four times as fast where the CPU has VNNI.

Only the body of the network changes: the pixels' normalisation and the embedding's length stay float32.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

_OPERATORS = ("Conv", "Add", "MaxPool", "Relu", "Clip")
_LATEST = 0.05
"""The weight of the latest batch in the moving average of a range, so that one strange photo does not widen it for all."""


def to_int8(
    model: onnx.ModelProto, photos: Iterable[NDArray[np.uint8]], leaving: Sequence[str] = ()
) -> onnx.ModelProto:
    """Quantise the graph statically, but for the nodes with the names in `leaving`. An activation's range is a moving average of its extremes over `photos`, batches (N, H, W, 3).

    Activations are unsigned and weights signed, with a scale for each channel: x86 has instructions for this pair.
    """
    original = onnx.ModelProto()
    original.CopyFrom(model)  # quantize_static moves the weights of the model that it is given into a file
    add_pre_process_metadata(original)  # without this mark it logs that batch norms may not be folded, which they are
    with tempfile.TemporaryDirectory() as directory:
        quantized = Path(directory) / "int8.onnx"
        quantize_static(
            original,
            quantized,
            _Photos(photos),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            nodes_to_exclude=list(leaving),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True, "CalibMovingAverageConstant": _LATEST},
        )
        return onnx.load(quantized)


class _Photos(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, batches: Iterable[NDArray[np.uint8]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
