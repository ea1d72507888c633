"""How much each caller may ask for: rates as token buckets, calls at once, and the size of one call."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from svckit.access.callers import NO_LIMITS, Caller, Limits
from svckit.errors import Reason, ServiceError

_MOST_CALLERS = 10_000
"""Callers whose use is remembered; those that a file lists are remembered beyond that."""
_LOOKED_AT = 100
"""Of those remembered, how many are looked at for one to forget when another comes."""
_NOT_SERVED = {Reason.QUOTA_EXCEEDED, Reason.QUEUE_FULL, Reason.NOT_READY, Reason.SHUTTING_DOWN}
_NOTHING = 1e-9
"""Floats that flow in by small steps do not quite add up."""
_BURST_S = 0.1
"""A caller may use up at once what it may have in this time, and 1: more would hold up the others, and less refuse who comes at almost even times."""
_RETRY_S = 0.1
"""When to try again where another call of the caller has to end first."""


class Bucket:
    """A token bucket. It may owe: what costs more than it holds is let through when it is full."""

    def __init__(self, rate: float, capacity: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate` is what flows in, a second; `capacity` is what it holds when it is full."""
        self._rate = rate
        self._clock = clock
        self._capacity = capacity
        self._level = self._capacity
        self._then = clock()

    def take(self, cost: float = 1.0) -> float:
        """Take the cost and return 0; or take nothing, and return the seconds after which it makes sense to try again."""
        self._flow()
        missing = min(cost, self._capacity) - self._level
        if missing > _NOTHING:
            return missing / self._rate
        self._level -= cost
        return 0.0

    def give_back(self, cost: float) -> None:
        """Put back what was taken."""
        self._flow()
        self._level = min(self._capacity, self._level + cost)

    @property
    def full(self) -> bool:
        """Whether it is as a new one is."""
        self._flow()
        return self._capacity - self._level <= _NOTHING

    def _flow(self) -> None:
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._then) * self._rate)
        self._then = now


@dataclass
class Spent:
    """What a call has taken of its caller's share, beside itself."""

    photos: int = 0


class _Usage:
    """What one caller is using."""

    def __init__(self) -> None:
        self.limits = NO_LIMITS
        self.inside = 0
        """Calls being served."""
        self.requests: Bucket | None = None
        self.photos: Bucket | None = None

    def give_back(self, spent: Spent) -> None:
        """Put back what a call has taken that was not served."""
        if self.requests:
            self.requests.give_back(1)
        if self.photos:
            self.photos.give_back(spent.photos)

    def limit(self, limits: Limits, clock: Callable[[], float]) -> None:
        """Hold the caller to these limits from here on."""
        self.limits = limits
        self.requests, self.photos = (
            Bucket(rate, 1 + _BURST_S * rate, clock) if rate else None
            for rate in (limits.requests_per_s, limits.photos_per_s)
        )

    @property
    def idle(self) -> bool:
        """Whether a caller who is new here has as much left."""
        return not self.inside and all(bucket.full for bucket in (self.requests, self.photos) if bucket)


class Quotas:
    """Holds every caller to its limits. What is refused here, or for want of room, is not counted.

    A caller is forgotten only when that gives it nothing: no call of it is being served, and its buckets are full.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._usages: OrderedDict[str, _Usage] = OrderedDict()
        """By name; the caller longest unheard of, or not looked at for longest, first."""

    @contextmanager
    def call(self, caller: Caller, spent: Spent) -> Iterator[None]:
        """Count a call while it is served. Raise ServiceError, QUOTA_EXCEEDED, if it is one too many, at once or a second.

        `spent` is what the call takes meanwhile, which the caller has again if there is no room for the call.
        """
        usage = self._usage(caller)
        most = caller.limits.concurrent_calls
        if most is not None and usage.inside >= most:
            raise _exceeded(caller, "concurrent_calls", most, "calls at once", _RETRY_S)
        if usage.requests and (wait_s := usage.requests.take()):
            raise _exceeded(caller, "requests_per_s", caller.limits.requests_per_s, "requests a second", wait_s)
        usage.inside += 1
        try:
            yield
        except ServiceError as error:
            if error.reason in _NOT_SERVED:
                usage.give_back(spent)
            raise
        finally:
            usage.inside -= 1

    def check(self, caller: Caller, spent: Spent, *, photos: int, k: int) -> None:
        """Count the photos of a call, as `spent`. Raise ServiceError, QUOTA_EXCEEDED, if they or `k` are too many."""
        limits = caller.limits
        check_k(caller, k)
        if limits.photos_per_call is not None and photos > limits.photos_per_call:
            raise _exceeded(caller, "photos_per_call", limits.photos_per_call, f"photos in one call, got {photos}")
        bucket = self._usage(caller).photos
        if bucket and photos and (wait_s := bucket.take(photos)):
            raise _exceeded(caller, "photos_per_s", limits.photos_per_s, "photos a second", wait_s)
        spent.photos = photos

    def _usage(self, caller: Caller) -> _Usage:
        usage = self._usages.get(caller.name)
        if usage is None:
            if len(self._usages) >= _MOST_CALLERS and not self._forget_one() and not caller.listed:
                raise _refused(
                    f"{caller.name} has to wait: {_MOST_CALLERS} others are using their share",
                    "callers",
                    _MOST_CALLERS,
                    _RETRY_S,
                )
            usage = self._usages[caller.name] = _Usage()
        else:
            self._usages.move_to_end(caller.name)
        # Mostly they are the same object, and comparing them costs more than all else here.
        if usage.limits is not caller.limits and usage.limits != caller.limits:
            usage.limit(caller.limits, self._clock)
        return usage

    def _forget_one(self) -> bool:
        """Forget a caller who has nothing in use, and return whether there was one among those looked at."""
        for _ in range(min(_LOOKED_AT, len(self._usages))):
            name, usage = self._usages.popitem(last=False)
            if usage.idle:
                return True
            self._usages[name] = usage
        return False


def check_k(caller: Caller, k: int) -> None:
    """Raise ServiceError, QUOTA_EXCEEDED, if these are more neighbours of a query than the caller may have."""
    most = caller.limits.max_k
    if most is not None and k > most:
        raise _exceeded(caller, "max_k", most, f"neighbours of a query, got {k}")


def _exceeded(
    caller: Caller, quota: str, most: float | None, what: str, retry_after_s: float | None = None
) -> ServiceError:
    return _refused(f"{caller.name} may have {most:g} {what}", quota, most, retry_after_s)


def _refused(message: str, quota: str, most: float | None, retry_after_s: float | None) -> ServiceError:
    return ServiceError(
        Reason.QUOTA_EXCEEDED,
        message,
        # Rounded up: who comes a little too soon is refused again.
        retry_after_s=None if retry_after_s is None else math.ceil(1e3 * retry_after_s) / 1e3,
        metadata={"quota": quota, "limit": f"{most:g}"},
    )
