"""The first SIGTERM or SIGINT asks a process to end in order, the second to end at once; its children are deaf to Ctrl-C."""

import asyncio
import itertools
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


def on_signals(at_second: Callable[[signal.Signals], None]) -> asyncio.Event:
    """Return an event that the first signal sets; `at_second` is called with each further one, whoever else has set the event."""
    signalled, numbers = asyncio.Event(), itertools.count(1)

    def on_signal(signum: signal.Signals) -> None:
        _log.info("signal", extra={"signal": signum.name})
        if next(numbers) > 1:
            at_second(signum)
        signalled.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, on_signal, signum)
    return signalled


async def ended_before(event: asyncio.Event, work: Awaitable[None]) -> bool:
    """Return whether the work ended before the event was set; if it did not, it is cancelled. Raise what the work raised."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait((working,))
    return False


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C from the processes started in the block. A terminal sends it to children as well, but this process ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
