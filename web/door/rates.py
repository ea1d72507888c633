"""How many requests with photos an address may send: a bucket for each address, which fills by and by."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from web.door.problems import DoorError, Reason

_MAX_ADDRESSES = 10_000
_MINUTE_S = 60.0
_SUBSCRIBER_BITS = 64


class Rates:
    """Counts the requests of addresses.

    An IPv6 address counts as its /64 network, which one subscriber has to itself, unless it stands for an IPv4 address.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` may come at once, and as many again in each minute; 0: any number."""
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Requests left, and when that was so, by address; the one longest unused first."""

    def take(self, address: str) -> None:
        """Count a request of the address. Raise DoorError if it has none left."""
        if not self._per_minute:
            return
        key, now = _network(address), self._clock()
        left, then = self._buckets.pop(key, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - then) * self._per_minute / _MINUTE_S)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        if not allowed:
            wait_s = round((1 - left) * _MINUTE_S / self._per_minute, 3)
            raise DoorError(
                Reason.TOO_MANY_CALLS,
                f"more than {self._per_minute} requests a minute came from this address",
                retry_after_s=wait_s,
            )


def _network(address: str) -> str:
    """Return what an address counts as."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _SUBSCRIBER_BITS), strict=False))
