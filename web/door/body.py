"""Read the body of a request, within limits: it is refused before it is read where its length is told, and else as it grows."""

import asyncio

from starlette.requests import Request

from web.door.problems import DoorError, Reason


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """Return the body. Raise DoorError if it is larger than `max_bytes`, or has not arrived within `timeout_s`.

    Raise ClientDisconnect if the caller leaves before all of it has come.
    """
    _check_told_length(request, max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _collect(request, max_bytes)
    except TimeoutError:
        raise DoorError(Reason.UPLOAD_TOO_SLOW, f"the request did not arrive within {timeout_s:g} s") from None


async def _collect(request: Request, max_bytes: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _check_told_length(request: Request, max_bytes: int) -> None:
    # The server itself refuses a length that is no number, and a body that is not as long as was told.
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> DoorError:
    return DoorError(Reason.UPLOAD_TOO_LARGE, f"the request has more than {max_bytes} bytes, the most that is taken")
