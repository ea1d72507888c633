"""The bound on the photos in a server: a call that does not fit, or would be late, is refused before its photos are decoded.

The batcher has a bound of its own, on items that wait for it. It knows neither the decoding before it nor how long that takes, and
what a batch takes does not tell how soon a photo is answered: so the pace here is measured from arrival to answer. The queues of
the batchers hold as many photos as are admitted, and therefore never refuse one.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from svckit.access import callers
from svckit.errors import Reason, ServiceError
from svckit.turns import limit_for

_PACE_WEIGHT = 0.1
_FIRST_GUESS_S = 0.5
# The share of the time to its deadline within which a call must be answered, by estimate. One that would be answered just in
# time may well be late, and then its work was done for nobody.
_SHARE_OF_DEADLINE = 0.75
# The share that it may spend waiting for those before it. A longer queue answers nobody more; and after an overload it takes as
# long as the queue is, or twice as long at half load, until calls are answered as quickly as before.
_SHARE_TO_WAIT = 1 / 3


class Stay:
    """The photos of one call that are inside."""

    def __init__(self, admission: "Admission", owner: str, photos: int) -> None:
        self.photos = photos
        self._admission = admission
        self._owner = owner
        admission.came(owner, photos)

    def become(self, photos: int) -> None:
        """Give up the room that turned out not to be needed: photos of which every car is wanted come in with room for all they may have."""
        self._admission.came(self._owner, photos - self.photos)
        self.photos = photos


class Admission:
    """Admits at most `limit` photos, each from before it is decoded until it is answered, and refuses the others at once.

    Callers who then have no more than an equal share of the limit inside may come with a quarter more. Since callers take turns, a call waits for the photos that
    come before its own by turns, not for all of another's.

    That bounds memory, and no photo is decoded only to find the next queue full. A call that could not be answered before
    its deadline is refused as well, rather than given up half-way: a caller's deadline says how long a queue is worth while.
    For one event loop. Each embedding counts as a photo: one of which several cars are embedded, as so many.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._inside_of: Counter[str] = Counter()
        """Photos inside, by caller."""
        self._stay_s = _FIRST_GUESS_S  # how long a call is inside, a moving average
        self._photo_s = (
            0.0  # time between two answered photos while there is work, a moving average; 0 before the first
        )
        self._last = 0.0  # when a photo was last answered

    @property
    def inside(self) -> int:
        """Photos inside."""
        return self._inside_of.total()

    def came(self, owner: str, photos: int) -> None:
        """Count photos of a caller as inside, or as gone if there are fewer than none."""
        self._inside_of[owner] += photos
        if not self._inside_of[owner]:
            del self._inside_of[owner]

    def check(self, photos: int, deadline: float | None) -> None:
        """Raise ServiceError, QUEUE_FULL, if so many photos cannot be admitted now. `deadline` is a time of the clock.

        While nothing is inside every deadline is met, by estimate: else one slow photo might keep all later ones out.
        """
        owner = callers.current.get().name
        inside, own = self.inside, self._inside_of[owner] + photos
        limit = limit_for(self._limit, own, len(self._inside_of.keys() | {owner}))
        if photos > self._limit or inside + photos > limit:
            raise ServiceError(
                Reason.QUEUE_FULL,
                f"no room for {photos} more photos: {inside} of {limit} are being embedded",
                retry_after_s=self._stay_s,
            )
        if inside and deadline is not None:
            self._check_time(owner, photos, deadline - self._clock())

    def _check_time(self, owner: str, photos: int, left_s: float) -> None:
        own = self._inside_of[owner]
        before, with_all = self._by_turns(owner, own), self._by_turns(owner, own + photos)
        wait_s, needed_s = before * self._photo_s, with_all * self._photo_s
        if wait_s > _SHARE_TO_WAIT * left_s or needed_s > _SHARE_OF_DEADLINE * left_s:
            raise ServiceError(
                Reason.QUEUE_FULL,
                f"too late for {photos} more photos: with the {with_all - photos} before them they take about {needed_s:.2f} s, "
                f"and the deadline is in {left_s:.2f} s, a third of which may pass waiting",
                retry_after_s=self._stay_s,
            )

    def _by_turns(self, owner: str, own: int) -> int:
        """Return how many photos are answered by the time that so many of this caller's are, as callers take turns."""
        return own + sum(min(inside, own) for other, inside in self._inside_of.items() if other != owner)

    @contextmanager
    def admit(self, photos: int, deadline: float | None = None) -> Iterator[Stay]:
        """Count so many photos as inside while the block runs. Raise what `check` raises."""
        self.check(photos, deadline)
        entered = self._clock()
        stay = Stay(self, callers.current.get().name, photos)
        try:
            yield stay
            self._answered(stay.photos, entered)
        finally:
            stay.become(0)

    def _answered(self, photos: int, entered: float) -> None:
        """Learn the pace from a call that was answered; one that failed or was given up says nothing about it."""
        now = self._clock()
        self._stay_s += _PACE_WEIGHT * (now - entered - self._stay_s)
        # Time before the call came was no work on it, whether the server was idle or busy with photos that were refused.
        each_s = (now - max(self._last, entered)) / photos
        self._last = now
        self._photo_s += min(1.0, _PACE_WEIGHT * photos if self._photo_s else 1.0) * (each_s - self._photo_s)
