"""How long batches take, and therefore how many items the next may have."""

import math
from collections.abc import Callable

_WEIGHT = 0.2
_FIRST_GUESS_S = 0.05
_SEVERAL_S = 10.0
"""How long after callers came by turns they are taken to go on."""


class Pace:
    """The pace of a backend, by a moving average. Times are of `time.monotonic`."""

    def __init__(self, max_batch: int, longest_s: Callable[[], float] | None) -> None:
        """`longest_s` returns the seconds that a batch should take at most while several callers come; None: any number."""
        self._max_batch = max_batch
        self._longest_s = longest_s
        self._item_s: float | None = None
        self._owner: str | None = None
        self._several_until = -math.inf

    def came(self, owner: str, now: float) -> None:
        """Note that items of an owner came."""
        if owner != self._owner:
            if self._owner is not None:
                self._several_until = now + _SEVERAL_S
            self._owner = owner

    def ran(self, items: int, run_s: float) -> None:
        """Note how long a batch ran."""
        each_s = run_s / items
        self._item_s = each_s if self._item_s is None else self._item_s + _WEIGHT * (each_s - self._item_s)

    def room(self, now: float) -> int:
        """Return how many items a batch may have: at least one, however long it takes."""
        if self._longest_s is None or not self._item_s or now >= self._several_until:
            return self._max_batch
        return max(1, int(min(self._max_batch, self._longest_s() / self._item_s)))

    def wait_s(self, items: int, lanes: int) -> float:
        """Return the seconds in which so many lanes run so many items."""
        return items / lanes * self._item_s if self._item_s else _FIRST_GUESS_S
