import asyncio

import grpc
import pytest

from svckit import streams
from svckit.errors import Reason, ServiceError

TIMEOUT_S = 10


class Watch:
    """A stream that would go on for ever."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.handler = grpc.unary_stream_rpc_method_handler(self.serve)

    async def serve(self, request, context) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@pytest.mark.parametrize("leave", [True, False], ids=["its caller leaves", "the server drains"])
async def test_a_stream_is_over_when(leave):
    watch, draining = Watch(), asyncio.Event()
    call = asyncio.create_task(streams.serve(watch.handler, None, None, until=draining))
    await watch.began.wait()
    if leave:
        call.cancel()
    else:
        draining.set()
    await asyncio.wait((call,), timeout=TIMEOUT_S)
    assert watch.ended.is_set()
    with pytest.raises(asyncio.CancelledError if leave else ServiceError) as caught:
        await call
    assert leave or caught.value.reason is Reason.SHUTTING_DOWN


async def test_a_stream_that_fails_fails_the_call():
    async def fails(request, context):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await streams.serve(grpc.unary_stream_rpc_method_handler(fails), None, None, until=asyncio.Event())
