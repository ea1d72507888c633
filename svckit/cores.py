"""How many threads are worth starting, and how several processes divide the processors."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")

_most = math.inf


def cores(cpu_max: Path = _CPU_MAX) -> int:
    """The processors this process may keep busy.

    They are those it may run on, or its container's CPU quota (cgroup v2), or its share of either.
    """
    return int(min(_available(cpu_max), _most))


def limit(most: int) -> None:
    """Makes this process one of several that share what is available: `cores` is at most so many from now on."""
    global _most  # noqa: PLW0603 (a property of the process, set once, when it starts)
    _most = most


@dataclass(frozen=True)
class Share:
    """What one of several processes may keep busy."""

    cores: int
    processors: frozenset[int] | None
    """The only ones it may run on; None if they are not divided."""

    @contextmanager
    def given(self) -> Iterator[None]:
        """What this thread starts in the block has the share from its first moment, before any library counts processors."""
        with _running_on(self.processors), _openmp_threads(self.cores):
            yield


def shares(processes: int, cpu_max: Path = _CPU_MAX) -> list[Share]:
    """All that is available divided evenly among the processes, a core each at least.

    Each has processors of its own where this process has the whole time of all its processors, and there are enough.
    Under a quota it does not: then any may be the one that is free, and only the number of threads is divided.
    """
    available, processors = _available(cpu_max), _processors()
    parts = [_part(list(range(available)), number, processes) for number in range(processes)]
    if available < len(processors) or processes > available:
        return [Share(max(1, len(part)), None) for part in parts]
    return [Share(len(part), frozenset(processors[index] for index in part)) for part in parts]


def _available(cpu_max: Path) -> int:
    processors = len(_processors())
    with suppress(OSError, ValueError):  # no cgroup v2, or the quota "max", which is none
        quota_us, period_us = map(int, cpu_max.read_text().split())
        return min(processors, math.ceil(quota_us / period_us))
    return processors


def _processors() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _part(indices: list[int], number: int, of: int) -> list[int]:
    return indices[number * len(indices) // of : (number + 1) * len(indices) // of]


@contextmanager
def _running_on(processors: frozenset[int] | None) -> Iterator[None]:
    if processors is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _openmp_threads(count: int) -> Iterator[None]:
    """Unless the user said how many."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
