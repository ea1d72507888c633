"""Which calls a server takes: none before it is warm, only so many at once, and none when it drains."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from svckit.errors import Reason, ServiceError


class Gate:
    """Closed at first, then opened, then drained. Knows the calls inside."""

    def __init__(self, max_calls: int) -> None:
        self.opened = False
        self.draining = asyncio.Event()
        self._max_calls = max_calls
        self._inside: set[asyncio.Task[Any]] = set()
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
    def call(self) -> Iterator[None]:
        """The time a call's task is inside. Raises ServiceError: NOT_READY, SHUTTING_DOWN or QUEUE_FULL."""
        self._check()
        task = asyncio.current_task()
        assert task is not None
        self._inside.add(task)
        self._empty.clear()
        try:
            yield
        except asyncio.CancelledError:
            if self._expelling:
                raise shutting_down() from None
            raise
        finally:
            self._inside.discard(task)
            if not self._inside:
                self._empty.set()

    async def drain(self, limit_s: float) -> bool:
        """Lets nobody in from now on and waits until the last has left; whether it did within the limit.

        Calls still inside then end with SHUTTING_DOWN.
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

    def _check(self) -> None:
        if self.draining.is_set():
            raise shutting_down()
        if not self.opened:
            raise ServiceError(Reason.NOT_READY, "the server is warming up", retry_after_s=1.0)
        if self.calls >= self._max_calls:
            message = f"the server is busy with {self.calls} calls, as many as it takes"
            raise ServiceError(Reason.QUEUE_FULL, message, retry_after_s=0.1)


def shutting_down() -> ServiceError:
    return ServiceError(Reason.SHUTTING_DOWN, "the server is shutting down")
