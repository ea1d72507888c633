"""Memory-mapped arrays that are read from one end to the other."""

import mmap
from typing import Any


def drop_pages(matrix: Any) -> None:
    """Give back the pages of a mapped array, which count as this process' memory; they stay in the disk's cache."""
    base = getattr(matrix, "base", None)
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)
