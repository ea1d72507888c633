"""The gate that calls pass: closed until the server is warm, open to only so many calls at once, and closed when it drains.

A connection may have three times as many places as are free, so that none keeps all others out: one alone has three quarters.

It counts calls, whatever they ask for, and so bounds the memory of their messages. How much work a service takes on, its
batcher says (`svckit.batcher`), or, where work is done before a batch, the service itself.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from svckit.errors import Reason, ServiceError

RETRY_S = 0.1
_OF_FREE = 3
"""How many places a connection may have for each that is free."""


class Gate:
    """Closed at first, then opened, then drained. It knows the calls inside."""

    def __init__(self, max_calls: int) -> None:
        self.opened = False
        self.draining = asyncio.Event()
        self._max_calls = max_calls
        self._inside: set[asyncio.Task[Any]] = set()
        self._calls_of: Counter[str] = Counter()
        """Calls inside, by connection."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._expelling = False

    @property
    def calls(self) -> int:
        """Calls inside."""
        return len(self._inside)

    @property
    def taking(self) -> bool:
        """Whether calls are let in, if there is room for them."""
        return self.opened and not self.draining.is_set()

    @contextmanager
    def call(self, connection: str = "") -> Iterator[None]:
        """Hold a place while a call of the connection is served.

        Raises ServiceError: NOT_READY, SHUTTING_DOWN or QUEUE_FULL.
        """
        self._check(connection)
        task = asyncio.current_task()
        assert task is not None
        self._inside.add(task)
        self._calls_of[connection] += 1
        self._empty.clear()
        try:
            yield
        except asyncio.CancelledError:
            if self._expelling:
                raise shutting_down() from None
            raise
        finally:
            self._inside.discard(task)
            self._forget(connection)
            if not self._inside:
                self._empty.set()

    async def drain(self, limit_s: float) -> bool:
        """Refuse new calls for good, and return whether all calls inside ended within the limit.

        Those that did not are ended, with SHUTTING_DOWN.
        """
        self.draining.set()
        try:
            async with asyncio.timeout(limit_s):
                await self._empty.wait()
        except TimeoutError:
            self._expel()
            return False
        return True

    def _expel(self) -> None:
        self._expelling = True
        for task in self._inside:
            task.cancel()

    def _forget(self, connection: str) -> None:
        self._calls_of[connection] -= 1
        if not self._calls_of[connection]:
            del self._calls_of[connection]

    def _check(self, connection: str) -> None:
        if self.draining.is_set():
            raise shutting_down()
        if not self.opened:
            raise ServiceError(Reason.NOT_READY, "the server is warming up", retry_after_s=1.0)
        if self.calls >= self._max_calls:
            message = f"the server is busy with {self.calls} calls, as many as it takes"
            raise ServiceError(Reason.QUEUE_FULL, message, retry_after_s=RETRY_S)
        own = self._calls_of[connection]
        if own + 1 > _OF_FREE * (self._max_calls - self.calls):
            message = f"{self.calls} calls are inside, {own} of this connection: the places left are for connections with fewer"
            raise ServiceError(Reason.QUEUE_FULL, message, retry_after_s=RETRY_S)


def shutting_down() -> ServiceError:
    return ServiceError(Reason.SHUTTING_DOWN, "the server is shutting down")
