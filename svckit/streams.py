"""Streaming calls, ended when the server drains. The only ones served are health's Watch and reflection.

Their clients may keep them open for as long as they like, and a drain would then always take its whole limit.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from svckit.gate import shutting_down

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:  # generic in its stubs alone
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler


def wrap(handler: Handler, serve: Callable[[Any, Context], Awaitable[None]]) -> Handler:
    """Return a handler that leaves the whole stream to `serve`, before any message of it is read, and does not parse them."""
    return grpc.stream_stream_rpc_method_handler(serve, None, handler.response_serializer)


async def serve(handler: Handler, request: Any, context: Context, *, until: asyncio.Event) -> None:
    """Serve the stream to its end. Raise ServiceError, SHUTTING_DOWN, if the event `until` is set before."""
    responses = asyncio.ensure_future(_respond(handler.unary_stream or handler.stream_stream, request, context))
    over = asyncio.ensure_future(until.wait())
    try:
        await asyncio.wait((responses, over), return_when=asyncio.FIRST_COMPLETED)
        if not responses.done():
            raise shutting_down()
        responses.result()
    finally:
        over.cancel()
        responses.cancel()
        await asyncio.wait((responses,))


async def _respond(behaviour: Any, request: Any, context: Context) -> None:
    """Run a servicer's method, which either writes its responses itself or yields them to be written here."""
    if inspect.isasyncgenfunction(behaviour):
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                await context.write(response)
    else:
        await behaviour(request, context)
