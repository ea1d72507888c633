"""Embeddings of photos that were seen before, by the hash of their content: a photo that comes again costs no decoding and no run."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]


def key_of(content: bytes, crop: object) -> bytes:
    """What a photo, and the part of it that is wanted, are known by: files that differ in a byte are two photos."""
    return hashlib.sha256(repr(crop).encode() + b"\n" + content).digest()


class Cache:
    """The embeddings of the last `size` different photos, the one unused for longest going first. For one event loop."""

    def __init__(self, size: int, hit: Callable[[], None]) -> None:
        """`hit` is called for each photo that was there."""
        self._size = size
        self._hit = hit
        self._rows: OrderedDict[bytes, Row] = OrderedDict()

    def get(self, key: bytes) -> Row | None:
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
            self._hit()
        return row

    def put(self, key: bytes, row: Row) -> None:
        self._rows[key] = row
        self._rows.move_to_end(key)
        if len(self._rows) > self._size:
            self._rows.popitem(last=False)
