"""Describe the machine that the generator runs on, and how busy it is."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STAT, _CPUINFO = Path("/proc/stat"), Path("/proc/cpuinfo")


def described() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class Busy:
    """The time that all cores were busy, and the whole time, since the system started."""

    busy: float
    all: float

    @classmethod
    def now(cls) -> "Busy | None":
        """Return the times so far, or None if the system doesn't tell them."""
        try:
            fields = [float(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        idle = fields[3] + fields[4]
        return cls(sum(fields) - idle, sum(fields))


def share(before: Busy | None, after: Busy | None) -> float | None:
    """Return the share of all cores that was busy between two times, if both are known."""
    if before is None or after is None or after.all <= before.all:
        return None
    return (after.busy - before.busy) / (after.all - before.all)


def _cpu() -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
