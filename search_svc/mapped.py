"""Memory-mapped arrays, read from one end to the other."""

import mmap
from typing import Any

from numpy.typing import NDArray


def forget(matrix: NDArray[Any]) -> None:
    """Lets go of the pages that were read, which count as this process' memory; the disk's cache keeps them."""
    if isinstance(matrix.base, mmap.mmap):
        matrix.base.madvise(mmap.MADV_DONTNEED)
