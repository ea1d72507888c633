"""Arrays that only grow: what was read of the first n rows stays true, so snapshots of any age share one."""

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_FIRST_ROWS = 64


class Growing(Generic[T]):
    """One thread appends; any number read what it has told them is there."""

    def __init__(self, kind: type[T], *shape: int) -> None:
        """`shape` is that of one row."""
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
        """(count, ...): not copied, and not to be written to."""
        return self._rows[:count]
