"""Watches whether the cluster is there, by whether its GCS takes a connection. It does not import Ray.

Ray itself says nothing while the GCS is away, and ends a process that has not reached it for a minute, in the middle of its calls. So a front
end that has waited for most of that time is ended here, in order.
"""

import logging
import os
import threading
import time
from collections.abc import Callable

from svckit import ray_cluster

_LIMIT = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""The variable of the seconds after which Ray ends a process that has lost the GCS."""
_RAYS_LIMIT_S = 60.0
_SHARE = 0.75
"""Of that time, how much is waited; in the rest calls end."""
_LOOK_S = 1.0

_log = logging.getLogger(__name__)


def patience_s() -> float:
    """Return the seconds for which a cluster may be lost before the process is ended."""
    return _SHARE * float(os.environ.get(_LIMIT, _RAYS_LIMIT_S))


class ClusterWatch:
    """Looks every second, in a thread of its own, from `start` to `stop`. Thread-safe."""

    def __init__(
        self,
        address: str,
        unreachable: Callable[[], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`unreachable` returns why no connection to the address can be made; empty if one can. By default, one is tried."""
        self.problem = ""
        """Why the cluster is lost; empty while it is there."""
        self.given_up = ""
        """Why the process is to end; empty while it may go on."""
        self._address = address
        self._unreachable = unreachable or ray_cluster.Dialer(address).unreachable
        self._clock = clock
        self._patience_s = patience_s()
        self._since = 0.0
        self._end: Callable[[str], None] | None = None
        self._looking = threading.Lock()
        """Held for a look, by whichever thread."""
        self._ending = threading.Lock()
        """Guards `given_up` and `_end`: whichever is set last has `_end` called."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cluster watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Once this has returned, nobody is told that the cluster is given up."""
        self._stopped.set()
        with self._ending:
            self._end = None

    def when_given_up(self, end: Callable[[str], None]) -> None:
        """Have `end` called with the reason, once, when the cluster is given up: at once if it is already."""
        with self._ending:
            self._end = end
            if self.given_up:
                end(self.given_up)

    def look(self) -> None:
        """Look once. What has changed is logged."""
        with self._looking:
            self._take(self._unreachable(), self._clock())

    def _take(self, reason: str, now: float) -> None:
        about = {"cluster": self._address}
        if reason and not self.problem:
            self._since = now
            _log.error("the Ray cluster is lost", extra={**about, "reason": reason, "ends_in_s": self._patience_s})
        elif self.problem and not reason:
            _log.warning("the Ray cluster is back", extra={**about, "lost_s": round(now - self._since, 1)})
        self.problem = reason and f"the Ray cluster at {self._address} is lost: {reason}"
        if reason and not self.given_up and now - self._since >= self._patience_s:
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        _log.error("the Ray cluster is given up, and the server stops", extra={"cluster": self._address})
        with self._ending:
            self.given_up = (
                f"the Ray cluster at {self._address} was lost for {self._patience_s:g} s ({reason}), "
                f"and Ray would end this process before long ({_LIMIT})"
            )
            if self._end:
                self._end(self.given_up)

    def _work(self) -> None:
        self.look()  # at once: the name of the cluster has just been resolved
        while not self._stopped.wait(_LOOK_S):
            self.look()
