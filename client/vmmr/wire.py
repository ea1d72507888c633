"""Turn embeddings into messages and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmmr.embedding.v1 import embedding_pb2

_FLOAT32_LE = np.dtype("<f4")


def pack(model: str, matrix: NDArray[Any]) -> embedding_pb2.Embeddings:
    """Return the message for a `(rows, dimension)` matrix of embeddings that `model` (a fingerprint) made."""
    rows = np.ascontiguousarray(matrix, dtype=_FLOAT32_LE)
    return embedding_pb2.Embeddings(model=model, dimension=rows.shape[1], data=rows.tobytes())


def unpack(message: embedding_pb2.Embeddings) -> NDArray[np.float32]:
    """Return the `(rows, dimension)` float32 matrix of a message, read-only, over a single copy of its bytes.

    Raise ValueError, with what is wrong, if the bytes are not a whole number of finite embeddings.
    """
    if message.dimension < 1:
        raise ValueError("dimension must be >= 1, got 0")
    row_bytes = 4 * message.dimension
    data = message.data  # protobuf copies the bytes each time they are asked for
    if len(data) % row_bytes:
        raise ValueError(f"data must be a multiple of {row_bytes} bytes (4 * dimension), got {len(data)}")
    matrix = np.frombuffer(data, dtype=_FLOAT32_LE).reshape(-1, message.dimension)
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise ValueError(f"row {row} has a value that is not finite")
    return matrix
