"""mosec: processes in a pipeline, joined by a Rust server. POST /inference, a photo in, float32 bytes out.

With batching, two stages, as its documentation has it for images: decoding in PEER_WORKERS processes, one network that
takes batches. Without, PEER_WORKERS processes that do both.
"""

import sys

import numpy as np
from mosec import Server, Worker
from work import BATCH, PORT, WAIT_MS, WORKERS, Work


class Bytes(Worker):
    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data


class Both(Bytes):
    def __init__(self) -> None:
        self._work = Work()

    def forward(self, data: bytes) -> bytes:
        return self._work.answers([data])[0]


class Decode(Bytes):
    def __init__(self) -> None:
        self._work = Work()

    def forward(self, data: bytes) -> np.ndarray:
        return self._work.decode(data)


class Embed(Bytes):
    def __init__(self) -> None:
        self._work = Work()

    def forward(self, data: list[np.ndarray]) -> list[bytes]:
        return [row.tobytes() for row in self._work.embed(data)]


if __name__ == "__main__":
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(PORT), "--timeout", "60000", "--log-level", "warning"]
    server = Server()
    if BATCH > 1:
        server.append_worker(Decode, num=WORKERS)
        server.append_worker(Embed, num=1, max_batch_size=BATCH, max_wait_time=WAIT_MS)
    else:
        server.append_worker(Both, num=WORKERS)
    server.run()
