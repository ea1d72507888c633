"""Graphs that are run as onnxruntime would by itself, but for int8, whose sums are exact on every CPU: see `arithmetic`."""

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray


def run(model: onnx.ModelProto, photos: NDArray[np.uint8], output: str = "embeddings") -> NDArray[np.float32]:
    """What a graph makes of photos (n, side, side, 3)."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (found,) = session.run([output], {"images": photos})
    return found
