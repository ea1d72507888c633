"""How long an operation may take."""

import math
import time
from collections.abc import Callable
from typing import TypeAlias

TimeLeft: TypeAlias = Callable[[], float]
"""Seconds that the next step may take; none are left if negative."""


def within(seconds: float) -> TimeLeft:
    """All steps together, counted from now."""
    ends = time.monotonic() + seconds
    return lambda: ends - time.monotonic()


def unlimited() -> float:
    """A step has no limit but its own."""
    return math.inf
