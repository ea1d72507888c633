"""The number of cores that faiss uses in a thread.

OpenMP's number of threads is a setting of the calling thread. Shards are searched in parallel, so faiss must not also
be parallel within one: the two together were measured eleven times slower.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss


def use_one_core() -> None:
    """Let faiss use one core in the calling thread, for as long as the thread lives."""
    use_cores(1)


def use_cores(cores: int) -> None:
    """Let faiss use so many cores in the calling thread, for as long as the thread lives."""
    faiss.omp_set_num_threads(cores)


@contextmanager
def one_core() -> Iterator[None]:
    """Let faiss use one core in the calling thread, until the block ends."""
    before = faiss.omp_get_max_threads()
    use_one_core()
    try:
        yield
    finally:
        use_cores(before)
