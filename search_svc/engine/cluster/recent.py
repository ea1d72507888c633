"""How long answers took of late."""

import math
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable

_MOST = 1000
_AGE_S = 60
_FEWEST = 20
_FIRST_GUESS_S = 0.05
_LEAST_S = 0.001


class RecentTimes:
    """The times of the answers of the last minute, of at most a thousand. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[tuple[float, float]] = deque()
        self._ranked: list[float] = []  # kept in order, since every search asks for a rank

    def add(self, seconds: float) -> None:
        if len(self._times) == _MOST:
            self._forget_oldest()
        self._times.append((self._clock(), seconds))
        insort(self._ranked, seconds)

    def p95(self) -> float:
        """Return the seconds within which 95 % of the answers came; a guess while there are few."""
        while self._times and self._times[0][0] < self._clock() - _AGE_S:
            self._forget_oldest()
        if len(self._ranked) < _FEWEST:
            return _FIRST_GUESS_S
        return max(_LEAST_S, self._ranked[math.ceil(0.95 * len(self._ranked)) - 1])

    def _forget_oldest(self) -> None:
        _, seconds = self._times.popleft()
        del self._ranked[bisect_left(self._ranked, seconds)]
