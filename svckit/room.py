"""Room for so much work at once, for which callers wait by turns."""

import asyncio
from dataclasses import dataclass
from types import TracebackType

from svckit.access import callers
from svckit.turns import Turns


@dataclass(eq=False)
class _Waiter:
    owner: str
    given: asyncio.Future[None]


class Room:
    """A semaphore, `async with room:`, for one event loop: who waits for much waits behind its own, and not before others."""

    def __init__(self, places: int) -> None:
        self.free = places
        """Places that are free."""
        self._waiting: Turns[_Waiter] = Turns()

    async def __aenter__(self) -> None:
        if self.free:
            self.free -= 1
            return
        waiter = _Waiter(callers.current.get().name, asyncio.get_running_loop().create_future())
        self._waiting.add(waiter)
        try:
            await waiter.given
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.given.cancelled():  # it was given just before
                self._pass_on()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        """Give a place to who is next and still waits; if there is nobody, it is free."""
        while self._waiting:
            waiter = self._waiting.next()
            self._waiting.pass_on()
            self._waiting.remove(waiter)
            if not waiter.given.done():
                waiter.given.set_result(None)
                return
        self.free += 1
