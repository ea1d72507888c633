"""What every peer does with a photo: the pixels and the network of vmmr, without vmmr's server.

The environment says how: PEER_MODEL is the bundle's folder, PEER_PORT where to listen, PEER_WORKERS how many processes (or
replicas) run the network, PEER_THREADS the threads of each, PEER_BATCH the most photos in one run, 1 for no batching.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime

from embedder_svc.network.arithmetic import VNNI, int8_arithmetic
from embedder_svc.photos.preprocess import Limits, Resize, decode

MODEL = Path(os.environ["PEER_MODEL"])
PORT, WORKERS, THREADS, BATCH = (int(os.environ[f"PEER_{name}"]) for name in ("PORT", "WORKERS", "THREADS", "BATCH"))
WAIT_MS = 2
"""How long a batch is waited for, where a server can't go without: a tenth of what one photo takes."""

_LIMITS = Limits(max_bytes=20_000_000, max_pixels=25_000_000, max_aspect=10.0)


class Work:
    """Decoding and the network, with the settings of onnxruntime that vmmr itself has."""

    def __init__(self) -> None:
        about = json.loads((MODEL / "model.json").read_text())
        self._resize = Resize(about["resize"], about["input_size"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Without it, int8 on a CPU without VNNI is quicker and wrong; see embedder_svc.network.runtime.
        if int8_arithmetic() not in VNNI:
            options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(
            str(MODEL / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def decode(self, photo: bytes) -> np.ndarray:
        """Return the pixels of a photo, (size, size, 3) of uint8."""
        return decode(photo, resize=self._resize, limits=_LIMITS)

    def embed(self, pixels: list[np.ndarray]) -> np.ndarray:
        """Return the embeddings of pixels, (N, dimension) of float32."""
        return self._session.run(["embeddings"], {"images": np.stack(pixels)})[0]

    def answers(self, photos: list[bytes]) -> list[bytes]:
        """Return the bytes of each row, little-endian float32."""
        return [row.tobytes() for row in self.embed([self.decode(photo) for photo in photos])]
