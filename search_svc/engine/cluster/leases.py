"""Which front ends there are, and what each of them needs, by what they renew."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search_svc.engine.cluster.source import VersionSource

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Lease:
    expires: float
    sources: Mapping[str, VersionSource]


class Leases:
    """The front ends that have renewed of late. Any thread may renew; one looks."""

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """A front end that has not renewed for `lease_s` is gone."""
        self._lease_s = lease_s
        self._clock = clock
        self._looked = clock()
        self._leases: dict[str, _Lease] = {}

    def __bool__(self) -> bool:
        return bool(self._leases)

    def renew(self, front: str, sources: Mapping[str, VersionSource]) -> None:
        """Note that a front end needs these versions, and no others; without any, it goes."""
        if sources:
            self._leases[front] = _Lease(self._clock() + self._lease_s, sources)
        else:
            self._leases.pop(front, None)

    def left_s(self) -> dict[str, float]:
        """Return for how many seconds each front end counts as here if it says no more."""
        now = self._clock()
        return {front: round(each.expires - now, 1) for front, each in list(self._leases.items())}

    def needed(self) -> dict[str, VersionSource]:
        """Forget the front ends that have gone, and return the versions that the others need, by key. It is to be called every moment."""
        now = self._clock()
        if now - self._looked > self._lease_s / 3:
            # This process was stopped, or its machine asleep: it has heard nobody, and the front ends are as likely there as before.
            for front, each in list(self._leases.items()):
                self._leases[front] = _Lease(now + self._lease_s, each.sources)
        self._looked = now
        for front, each in list(self._leases.items()):
            if each.expires < now and self._leases.get(front) is each:
                _log.warning("a front end has gone without a word: %s", front)
                self._leases.pop(front, None)
        return {key: source for each in list(self._leases.values()) for key, source in each.sources.items()}
