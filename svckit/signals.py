"""The first SIGTERM or SIGINT asks a process to end in order, the second to end at once."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)


def on_signals(at_second: Callable[[signal.Signals], None]) -> asyncio.Event:
    """An event that the first signal sets; with each further one `at_second` is called."""
    signalled = asyncio.Event()

    def on_signal(signum: signal.Signals) -> None:
        _log.info("signal", extra={"signal": signum.name})
        if signalled.is_set():
            at_second(signum)
        signalled.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, on_signal, signum)
    return signalled


async def ended_before(event: asyncio.Event, work: Awaitable[None]) -> bool:
    """Whether the work ended, well, before the event; if not it is cancelled. Raises what the work raised."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait((working,))
    return False
