"""Memory-mapped arrays, read from one end to the other."""

import mmap
from typing import Any


def forget(matrix: Any) -> None:
    """Lets go of the pages that were read, which count as this process' memory; the disk's cache keeps them."""
    base = getattr(matrix, "base", None)
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)
