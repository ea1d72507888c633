"""How long answers took of late."""

import math
import time
from collections import deque
from collections.abc import Callable

_FEWEST = 20
_FIRST_GUESS_S = 0.05
_LEAST_S = 0.001


class RecentTimes:
    """The times of the answers of the last minute, of at most a thousand. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[tuple[float, float]] = deque(maxlen=1000)

    def add(self, seconds: float) -> None:
        self._times.append((self._clock(), seconds))

    def p95(self) -> float:
        """Return the seconds within which 95 % of the answers came; a guess while there are few."""
        while self._times and self._times[0][0] < self._clock() - 60:
            self._times.popleft()
        if len(self._times) < _FEWEST:
            return _FIRST_GUESS_S
        ranked = sorted(seconds for _, seconds in self._times)
        return max(_LEAST_S, ranked[math.ceil(0.95 * len(ranked)) - 1])
