"""Deadlines of operations."""

import math
import time
from collections.abc import Callable
from typing import TypeAlias

TimeLeft: TypeAlias = Callable[[], float]
"""Returns the seconds that the next step may take; negative if the deadline has passed."""


def within(seconds: float) -> TimeLeft:
    """Return the time left until `seconds` from now, for all steps together."""
    ends = time.monotonic() + seconds
    return lambda: ends - time.monotonic()


def unlimited() -> float:
    """Return no limit: the step has its own, if any."""
    return math.inf
