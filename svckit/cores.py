"""How many threads are worth starting."""

import math
import os
from contextlib import suppress
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def cores(cpu_max: Path = _CPU_MAX) -> int:
    """The processors this process may keep busy: those it may run on, or its container's CPU quota (cgroup v2)."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no cgroup v2, or the quota "max", which is none
        quota_us, period_us = map(int, cpu_max.read_text().split())
        return min(processors, math.ceil(quota_us / period_us))
    return processors
