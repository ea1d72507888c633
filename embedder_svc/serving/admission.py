"""How much a server takes on at once."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from svckit.errors import Reason, ServiceError

_PACE_WEIGHT = 0.1
_FIRST_GUESS_S = 0.5
# A call that would be answered just in time may be late as well, and its work then is lost to all others.
_SHARE_OF_DEADLINE = 0.75
# A longer queue answers nobody more. After an overload it takes its own length, and that again where half of the pace is
# asked for, until calls are answered as before.
_SHARE_TO_WAIT = 1 / 3


class Admission:
    """Lets in so many photos, from before they are decoded until they are answered, and turns the others away at once.

    That bounds memory, and no photo is decoded only to find the next queue full. A call that could not be answered before
    its deadline is turned away as well, rather than take its turn and give up on the way: a caller's deadline says how long
    a queue is worth while to it. For one event loop.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._inside = 0
        self._stay_s = _FIRST_GUESS_S
        self._photo_s = 0.0  # between two photos that are answered, while there is work; 0 before the first
        self._last = 0.0  # when one was last answered

    def check(self, photos: int, deadline: float | None) -> None:
        """Raises ServiceError, QUEUE_FULL, if so many could not be let in now. `deadline` is a time of the clock.

        Where nothing is inside there is room, whatever the last photos took: else a server might never take another.
        """
        if self._inside + photos > self._limit:
            raise ServiceError(
                Reason.QUEUE_FULL,
                f"no room for {photos} more photos: {self._inside} of {self._limit} are being embedded",
                retry_after_s=self._stay_s,
            )
        if self._inside and deadline is not None:
            self._check_time(photos, deadline - self._clock())

    def _check_time(self, photos: int, left_s: float) -> None:
        wait_s, needed_s = self._inside * self._photo_s, (self._inside + photos) * self._photo_s
        if wait_s > _SHARE_TO_WAIT * left_s or needed_s > _SHARE_OF_DEADLINE * left_s:
            raise ServiceError(
                Reason.QUEUE_FULL,
                f"too late for {photos} more photos: with the {self._inside} before them they take about {needed_s:.2f} s, "
                f"and the deadline is in {left_s:.2f} s, a third of which may pass waiting",
                retry_after_s=self._stay_s,
            )

    @contextmanager
    def admit(self, photos: int, deadline: float | None = None) -> Iterator[None]:
        """The time `photos` photos are inside. Raises what `check` raises."""
        self.check(photos, deadline)
        entered = self._clock()
        self._inside += photos
        try:
            yield
            self._answered(photos, entered)
        finally:
            self._inside -= photos

    def _answered(self, photos: int, entered: float) -> None:
        """Learns from those that were embedded alone: one that is refused or gives up leaves sooner."""
        now = self._clock()
        self._stay_s += _PACE_WEIGHT * (now - entered - self._stay_s)
        # What came before this call, be it nothing or photos that were refused, was no work for it.
        each_s = (now - max(self._last, entered)) / photos
        self._last = now
        self._photo_s += min(1.0, _PACE_WEIGHT * photos if self._photo_s else 1.0) * (each_s - self._photo_s)
