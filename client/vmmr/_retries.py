"""When to send a call again: while its service can't be reached, and when an overloaded service says so, within a deadline."""

import logging
import random

from vmmr._deadlines import Deadline
from vmmr._errors import CallError, OverloadedError, UnavailableError

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_PASSING = ("NOT_READY", "SHUTTING_DOWN")
"""The services' reasons for UNAVAILABLE that end by themselves: another server takes over, or the same one after a moment."""

_log = logging.getLogger("vmmr")


class Retries:
    """The attempts at one call."""

    def __init__(self, patience_s: float, *, repeatable: bool, reconnect_s: float | None = None) -> None:
        """Count `patience_s`, the seconds after which no further attempt is made, from now.

        `reconnect_s` is the same while the service can't be reached. If the call is not `repeatable`, there is one attempt.
        """
        self._deadline = Deadline(patience_s)
        self._reconnecting = Deadline(patience_s if reconnect_s is None else min(patience_s, reconnect_s))
        self._repeatable = repeatable
        self._next_pause_s = _FIRST_PAUSE_S
        self.attempts = 0
        """How many have failed, and are followed by another."""

    def pause_s(self, error: CallError) -> float:
        """Return the seconds to wait before the next attempt. Raise the error if there is to be none."""
        pause_s = self._asked_for(error)
        # Callers who were refused together must not come back together.
        pause_s *= random.uniform(1.0, 1.5)  # noqa: S311 (no secret)
        deadline = self._reconnecting if isinstance(error, UnavailableError) else self._deadline
        if pause_s >= deadline.left_s():
            raise error
        self.attempts += 1
        if self.attempts == 1 and isinstance(error, UnavailableError):
            # A caller may wonder what takes so long.
            _log.info("%s; trying again for up to %.1f s", error, deadline.left_s())
        return pause_s

    def _asked_for(self, error: CallError) -> float:
        """Return how long the service, or else growing patience, asks to wait. Raise the error if waiting is no use."""
        if not self._repeatable or not isinstance(error, UnavailableError | OverloadedError):
            raise error
        if error.retry_after_s is not None:
            return max(error.retry_after_s, _FIRST_PAUSE_S / 10)
        if not isinstance(error, UnavailableError) or (error.reason and error.reason not in _PASSING):
            raise error
        pause_s = self._next_pause_s
        self._next_pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return pause_s
