"""The bounds on streams that are open at once: of one connection, and in all.

The last quarter of the places is for connections that have none: so that few connections keep no other out.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from svckit.errors import Reason, ServiceError

RETRY_S = 1.0


class Places:
    """A bounded number of places, of which one connection may take only a part."""

    def __init__(self, *, per_connection: int, in_all: int) -> None:
        self._per_connection = per_connection
        self._in_all = in_all
        self._shared = in_all - in_all // 4
        """Places that any connection may take."""
        self._taken_of: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self._taken_of.total()

    @contextmanager
    def taken_by(self, connection: str) -> Iterator[None]:
        """Hold a place for the connection. Raises ServiceError, TOO_MANY_STREAMS, if there is none for it."""
        self._check(connection)
        self._taken_of[connection] += 1
        try:
            yield
        finally:
            self._taken_of[connection] -= 1
            if not self._taken_of[connection]:
                del self._taken_of[connection]

    def _check(self, connection: str) -> None:
        if (own := self._taken_of[connection]) >= self._per_connection:
            _refuse(f"this connection has {own} streams open, as many as one connection may have")
        if (taken := self.taken) >= self._in_all:
            _refuse(f"{taken} streams are open, as many as the server takes")
        if taken >= self._shared and own:
            _refuse(f"{taken} streams are open, {own} of this connection: the last places are for other connections")


def _refuse(message: str) -> None:
    raise ServiceError(Reason.TOO_MANY_STREAMS, message, retry_after_s=RETRY_S)
