"""A cache of embeddings, by the hash of a photo's content: a photo that comes again is neither decoded nor embedded."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from embedder_svc.network.cars import Cut

Rows = tuple[NDArray[np.float32], Sequence[Cut]]
"""The embeddings (R, dimension) of one photo, and the part of it that each is of."""


def key_of(content: bytes, wanted: object) -> bytes:
    """Return the key of a photo and of what is wanted of it. Files that differ in a byte have different keys."""
    return hashlib.sha256(repr(wanted).encode() + b"\n" + content).digest()


class Cache:
    """Keeps the embeddings of `size` photos; when full, it drops the one that was unused for longest. For one event loop."""

    def __init__(self, size: int, hit: Callable[[], None]) -> None:
        """`hit` is called for each photo that `get` finds."""
        self._size = size
        self._hit = hit
        self._rows: OrderedDict[bytes, Rows] = OrderedDict()

    def get(self, key: bytes) -> Rows | None:
        rows = self._rows.get(key)
        if rows is not None:
            self._rows.move_to_end(key)
            self._hit()
        return rows

    def put(self, key: bytes, rows: Rows) -> None:
        self._rows[key] = rows
        self._rows.move_to_end(key)
        if len(self._rows) > self._size:
            self._rows.popitem(last=False)
