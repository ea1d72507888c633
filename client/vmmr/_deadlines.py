"""Deadlines of operations."""

import math
import time
from collections.abc import Callable
from typing import TypeAlias

TimeLeft: TypeAlias = Callable[[], float]
"""Returns the seconds that the next step may take; negative if the deadline has passed."""


class Deadline:
    """A deadline, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds that are left; negative if it has passed."""
        return self._ends - time.monotonic()

    def remaining_s(self) -> float:
        """Return the seconds that are left. Raise TimeoutError if none are."""
        left = self.left_s()
        if left <= 0:
            raise TimeoutError
        return left


def within(seconds: float) -> TimeLeft:
    """Return the time left until `seconds` from now, for all steps together."""
    return Deadline(seconds).left_s


def unlimited() -> float:
    """Return no limit: the step has its own, if any."""
    return math.inf
