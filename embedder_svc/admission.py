"""How much a server takes on at once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from svckit.errors import Reason, ServiceError

_PACE_WEIGHT = 0.1
_FIRST_GUESS_S = 0.5


class Admission:
    """Lets in so many photos, from before they are decoded until they are answered, and turns the others away at once.

    That bounds memory, and no photo is decoded only to find the next queue full. For one event loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._stay_s = _FIRST_GUESS_S

    @contextmanager
    def admit(self, photos: int) -> Iterator[None]:
        """The time `photos` photos are inside. Raises ServiceError, QUEUE_FULL, if there is no room for all of them."""
        if self._inside + photos > self._limit:
            raise ServiceError(
                Reason.QUEUE_FULL,
                f"no room for {photos} more photos: {self._inside} of {self._limit} are being embedded",
                retry_after_s=self._stay_s,
            )
        self._inside += photos
        entered = time.monotonic()
        try:
            yield
            # Only of those that were embedded: one that is refused or gives up leaves sooner.
            self._stay_s += _PACE_WEIGHT * (time.monotonic() - entered - self._stay_s)
        finally:
            self._inside -= photos
