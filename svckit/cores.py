"""The number of threads that are worth starting, and the division of the processors among several processes."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")

_limit = math.inf


def cores(cpu_max: Path = _CPU_MAX) -> int:
    """Return the number of processors that this process may keep busy.

    That is the least of: the processors it may run on, its container's CPU quota (cgroup v2), and what `limit` set.
    """
    return int(min(_available(cpu_max), _limit))


def limit(most: int) -> None:
    """Set the most that `cores` returns from this call on, for a process that shares the machine with others of its kind."""
    global _limit  # noqa: PLW0603 (a property of the process, set once, when it starts)
    _limit = most


@dataclass(frozen=True)
class Share:
    """One process' share of the processors."""

    cores: int
    processors: frozenset[int] | None
    """The only processors it may run on; None if any."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the share to every process that this thread starts in the block, before any library in it counts processors."""
        with _running_on(self.processors), _openmp_threads(self.cores):
            yield


def shares(processes: int, cpu_max: Path = _CPU_MAX) -> list[Share]:
    """Divide what is available evenly among the processes; each share is at least one core.

    Each process gets processors of its own, unless there are fewer processors than processes, or a CPU quota: under a quota
    any processor may be the one that has time left, so only the number of threads is divided.
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
    """Set OMP_NUM_THREADS in the block, unless the user has set it."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
