"""Watches whether the cluster is there, by whether its GCS takes a connection. It knows nothing of Ray.

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
    """Looks every second, in a thread of its own, from `start` to `stop`. The others may read from any thread."""

    def __init__(
        self,
        address: str,
        unreachable: Callable[[str], str] = ray_cluster.unreachable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`unreachable` returns why there is no connection to an address; empty if there is."""
        self.problem = ""
        """Why the cluster is lost; empty while it is there."""
        self.given_up = ""
        """Why the process is to end; empty while it may go on."""
        self._address = address
        self._unreachable = unreachable
        self._clock = clock
        self._patience_s = patience_s()
        self._since = 0.0
        self._end: Callable[[], None] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cluster watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def when_given_up(self, end: Callable[[], None]) -> None:
        """Have `end` called, once, when the cluster is given up."""
        self._end = end

    def look(self) -> None:
        """Look once. What has changed is logged."""
        reason, now = self._unreachable(self._address), self._clock()
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
        self.given_up = (
            f"the Ray cluster at {self._address} was lost for {self._patience_s:g} s ({reason}), "
            f"and Ray would end this process before long ({_LIMIT})"
        )
        _log.error("the Ray cluster is given up, and the server stops", extra={"cluster": self._address})
        if self._end:
            self._end()

    def _work(self) -> None:
        while not self._stopped.wait(_LOOK_S):
            self.look()
