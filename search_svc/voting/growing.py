"""Arrays that only grow. The first n rows never change, so snapshots of any age share one array."""

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_FIRST_ROWS = 64


class Growing(Generic[T]):
    """An array that one thread appends to, while any number of threads read the rows they were told of."""

    def __init__(self, kind: type[T], *shape: int) -> None:
        """Make an empty array. `shape` is the shape of one row."""
        self._rows: NDArray[T] = np.empty((_FIRST_ROWS, *shape), kind)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Any) -> None:
        if self._count == len(self._rows):
            grown = np.empty((2 * self._count, *self._rows.shape[1:]), self._rows.dtype)
            grown[: self._count] = self._rows
            self._rows = grown
        self._rows[self._count] = row
        self._count += 1

    def first(self, count: int) -> NDArray[T]:
        """Return the first rows (count, ...), not copied. The caller must not write to them."""
        return self._rows[:count]
