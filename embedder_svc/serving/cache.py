"""A cache of embeddings, by the hash of a photo's content: a photo that comes again is neither decoded nor embedded."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]


def key_of(content: bytes, crop: object) -> bytes:
    """Return the key of a photo and the part of it that is wanted. Files that differ in a byte have different keys."""
    return hashlib.sha256(repr(crop).encode() + b"\n" + content).digest()


class Cache:
    """Keeps the embeddings of `size` photos; when full, it drops the one that was unused for longest. For one event loop."""

    def __init__(self, size: int, hit: Callable[[], None]) -> None:
        """`hit` is called for each photo that `get` finds."""
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
