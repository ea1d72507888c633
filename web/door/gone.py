"""Drop the work of callers who have gone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what the work returns. If the caller leaves meanwhile, cancel it and raise ClientDisconnect.

    The body must have been read: what comes after it is the end of the connection.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
    finally:
        leaving.cancel()
        working.cancel()
    raise ClientDisconnect


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
