"""The gallery that a server serves: the newest view, and the calls that wait for a newer one."""

import asyncio
import threading
import time
from contextlib import suppress
from math import inf

from search_svc.live.view import View
from svckit.errors import Reason, ServiceError

MOST_WAIT_S = 10.0
"""Longest wait for a sequence number: a disk that hangs, or a number that was never given, must not hold calls for ever."""


class LiveGallery:
    """Holds the newest view. Thread-safe: one thread shows views, any number read."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._waiting: set[asyncio.Future[None]] = set()
        self._changing = threading.Lock()  # guards both

    @property
    def view(self) -> View:
        """The newest view. Take it once for an answer: a second look may give another one."""
        return self._view

    def show(self, view: View) -> None:
        """Make `view` the newest one, and wake the calls that wait for it."""
        with self._changing:
            self._view = view
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            # A loop that is closed has no calls left that wait.
            with suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(_wake, future)

    async def reach(self, sequence: int, deadline: float | None) -> None:
        """Wait until the view holds that entry of the journal.

        Raises ServiceError: DEADLINE_EXCEEDED at `deadline`, a time of `time.monotonic`; SEQUENCE_NOT_REACHED after MOST_WAIT_S.
        """
        if self._view.sequence >= sequence:
            return
        end, limit = inf if deadline is None else deadline, time.monotonic() + MOST_WAIT_S
        try:
            async with asyncio.timeout_at(min(end, limit)):
                while (view := self._view).sequence < sequence:
                    await self._after(view)
        except TimeoutError as error:
            raise self._not_reached(sequence, late=end <= limit) from error

    async def _after(self, view: View) -> None:
        """Wait until there is a newer view than this one."""
        future = asyncio.get_running_loop().create_future()
        with self._changing:
            if self._view is not view:
                return
            self._waiting.add(future)
        try:
            await future
        finally:
            with self._changing:
                self._waiting.discard(future)

    def _not_reached(self, sequence: int, *, late: bool) -> ServiceError:
        at = self._view.sequence
        if late:
            text = f"the deadline passed before journal entry {sequence} was here; the gallery is at {at}"
            return ServiceError(Reason.DEADLINE_EXCEEDED, text)
        text = (
            f"journal entry {sequence} was not here after {MOST_WAIT_S:g} s, the gallery is at {at}: was it ever given?"
        )
        details = {"min_sequence": str(sequence), "journal_sequence": str(at)}
        return ServiceError(Reason.SEQUENCE_NOT_REACHED, text, metadata=details)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
