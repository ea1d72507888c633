"""How many threads are worth starting."""

import os


def cores() -> int:
    """The processors this process may run on. A container's CPU quota is not seen: set thread counts there."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
