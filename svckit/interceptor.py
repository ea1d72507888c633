"""Everything around a call: who calls, the gate, the request id, errors as statuses, a log line, metrics."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from svckit import logs, streams
from svckit.access.access import Access, Call
from svckit.access.callers import ANYBODY
from svckit.artifact import ArtifactError
from svckit.errors import Reason, ServiceError
from svckit.gate import Gate
from svckit.metrics import Metrics
from svckit.places import Places
from svckit.status import status_of
from svckit.streams import Context, Handler

if TYPE_CHECKING:  # what it imports is imported where calls are traced alone
    from svckit.spans import TracedCall, Tracing

REQUEST_ID = "x-request-id"

_HEALTH = "/grpc.health.v1.Health/"
_STREAMS_OF_A_CONNECTION = 16
_LONGEST_REQUEST_ID = 128
_TRANSIT_S = 0.05
# How long a message may take to come: a caller that never ends its upload keeps others out, because it counts as a call.
_RECEIVE_S = 60
# The same for calls that are answered in every state: they take no place from others, but memory.
_RECEIVE_ALWAYS_S = 10
# The other statuses are the caller's doing, which OpenTelemetry does not count as errors of a server.
_SERVER_FAILED = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
_log = logging.getLogger("svckit.calls")


class Interceptor(grpc.aio.ServerInterceptor):
    """Stands between gRPC and the servicers. Anybody may ask for health; that is answered in every state, and not logged.

    Streams have places of their own, apart from those of calls: one set for callers who are known and one for those who are not,
    in each of which a connection may have only its part.

    Methods in `always`, by their full names, are answered in every state, too. `before` maps methods to functions that are
    called with the call's deadline before its message is read; they may raise ServiceError.
    """

    def __init__(
        self,
        gate: Gate,
        metrics: Metrics,
        access: Access,
        *,
        always: Collection[str] = (),
        before: Mapping[str, Callable[[float | None], None]] = MappingProxyType({}),
        max_streams: int,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._gate = gate
        self._metrics = metrics
        self._access = access
        self._always = frozenset(always)
        self._before = before
        self._tracing = tracing
        self._streams = {
            known: Places(per_connection=_STREAMS_OF_A_CONNECTION, in_all=max_streams) for known in (False, True)
        }
        for known, places in self._streams.items():
            metrics.streams(lambda places=places: places.taken, token=known)  # type: ignore[misc]  # mypy knows no default

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return handler
        if handler.response_streaming:
            return streams.wrap(handler, partial(self._stream, handler, method))
        if method.startswith(_HEALTH):
            return grpc.stream_unary_rpc_method_handler(partial(self._health, handler))
        # Handled as a stream of one message, a call can be refused before its message is read into memory.
        # Without serializers, bytes that are no message are an error like any other, with a reason and a log line.
        return grpc.stream_unary_rpc_method_handler(partial(self._call, handler, method))

    async def _health(self, handler: Handler, messages: object, context: Context) -> bytes:  # noqa: ARG002 (gRPC passes them)
        """Answer a health check, however busy the server is."""
        try:
            with _foreseen():
                return await _serve(handler, context, _RECEIVE_ALWAYS_S)
        except ServiceError as error:
            await _abort(error, _request_id(context), context)

    async def _call(self, handler: Handler, method: str, messages: object, context: Context) -> bytes:  # noqa: ARG002
        # The message is read from the context: iterating over `messages` would cost a call 0.1 ms more.
        request_id = _request_id(context)
        logs.request_id.set(request_id)
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        call = Call(method, context.peer(), request_id)
        outcome = await self._outcome(handler, call, context)
        if call.noted:
            await call.noted
        if isinstance(outcome, ServiceError):
            await _abort(outcome, request_id, context)
        return outcome

    async def _outcome(self, handler: Handler, call: Call, context: Context) -> bytes | ServiceError:
        """Return the response or the error, after the call has been counted and logged."""
        started = time.perf_counter()
        traced = _traced(self._tracing, call.method, context) if self._tracing else None
        code, failure = grpc.StatusCode.OK, None
        self._metrics.call_began()
        try:
            with _foreseen():
                return await self._answer(handler, call, context)
        except ServiceError as error:
            code, failure = error.status, error
            return error
        except grpc.aio.AbortError:
            code = context.code()
            raise
        except asyncio.CancelledError:
            code = _why_left(context)
            raise
        finally:
            seconds = time.perf_counter() - started
            reason = failure.reason if failure else None
            self._metrics.call_ended(call.method, code, reason, seconds, traced.exemplar if traced else None)
            _log_call(call, code, reason, seconds)
            self._access.note(call, code.name, failure)
            if traced:
                _end(traced, code, reason)

    async def _answer(self, handler: Handler, call: Call, context: Context) -> bytes:
        await self._access.enter(call, context)
        if call.method in self._always:
            return await _serve(handler, context, _RECEIVE_ALWAYS_S)
        with self._access.place(call), self._gate.call(call.peer):
            if check := self._before.get(call.method):
                check(deadline(context))
            return await self._serve(handler, call, context)

    async def _serve(self, handler: Handler, call: Call, context: Context) -> bytes:
        request = await _request(handler, context, _RECEIVE_S)
        self._access.check(call, request)
        response = await _respond(handler, request, context)
        self._access.done(call, response)
        return _serialized(handler, response)

    async def _stream(self, handler: Handler, method: str, messages: object, context: Context) -> None:  # noqa: ARG002
        request_id = _request_id(context)
        logs.request_id.set(request_id)
        call = Call(method, context.peer(), request_id)
        try:
            with _foreseen():
                if not method.startswith(_HEALTH):
                    await self._access.enter(call, context)
                with self._streams[await self._access.known(context)].taken_by(call.peer):
                    streaming = handler.request_streaming
                    request = _requests(handler, context) if streaming else await _request(handler, context, _RECEIVE_S)
                    await streams.serve(handler, request, context, until=self._gate.draining)
        except ServiceError as error:
            self._metrics.stream_failed(error.reason)
            self._access.note(call, error.status.name, error)
            if call.noted:
                await call.noted
            await _abort(error, request_id, context)


def deadline(context: Context) -> float | None:
    """Return when the caller stops waiting, as a time of `time.monotonic`; None if it waits for ever."""
    remaining_s: float | None = context.time_remaining()
    return None if remaining_s is None else time.monotonic() + remaining_s


@contextmanager
def _foreseen() -> Iterator[None]:
    """Turn exceptions that nobody foresaw into ServiceError, INTERNAL."""
    try:
        yield
    except (ServiceError, grpc.aio.AbortError):
        raise
    except asyncio.CancelledError as error:
        if _caller_left():
            raise
        raise _internal() from error
    except ArtifactError as error:
        raise _damaged(error) from error
    except Exception as error:
        raise _internal() from error


async def _serve(handler: Handler, context: Context, within_s: float) -> bytes:
    return _serialized(handler, await _respond(handler, await _request(handler, context, within_s), context))


async def _respond(handler: Handler, request: Any, context: Context) -> Any:
    return await handler.unary_unary(request, context)  # type: ignore[arg-type,misc]  # the stubs know sync ones only


def _serialized(handler: Handler, response: Any) -> bytes:
    return handler.response_serializer(response)  # type: ignore[misc]


async def _requests(handler: Handler, context: Context) -> AsyncIterator[Any]:
    """Yield a stream's messages. Raise ServiceError if the first does not come in time."""
    encoded = await _received(context, _RECEIVE_S)
    while encoded is not grpc.aio.EOF:
        yield _parsed(handler, encoded)
        encoded = await context.read()


async def _request(handler: Handler, context: Context, within_s: float) -> Any:
    """Wait for all of the call's message and return it, parsed; its bytes are not kept."""
    encoded = await _received(context, within_s)
    if encoded is grpc.aio.EOF:
        raise ServiceError(Reason.MALFORMED_REQUEST, "the request did not come whole")
    return _parsed(handler, encoded)


async def _received(context: Context, within_s: float) -> Any:
    try:
        async with asyncio.timeout(within_s):
            return await context.read()
    except TimeoutError as error:
        raise ServiceError(Reason.DEADLINE_EXCEEDED, f"the request took more than {within_s} s to come") from error


def _parsed(handler: Handler, encoded: bytes) -> Any:
    try:
        return handler.request_deserializer(encoded)  # type: ignore[misc]
    except DecodeError as error:
        raise ServiceError(Reason.MALFORMED_REQUEST, f"the request is not the method's message: {error}") from error


async def _abort(error: ServiceError, request_id: str, context: Context) -> NoReturn:
    status = rpc_status.to_status(status_of(error, request_id))
    await context.abort(status.code, status.details, (*status.trailing_metadata, (REQUEST_ID, request_id)))


def _internal() -> ServiceError:
    """Log the exception, and return an error that only says where to look: its own message might tell a caller too much."""
    _log.exception("unforeseen error")
    return ServiceError(Reason.INTERNAL, "internal error; the server's log has it under this call's request id")


def _damaged(error: ArtifactError) -> ServiceError:
    """Log a file that is not as it should be, and return an error that names it and the way out, as the log does."""
    _log.error("a file is damaged", extra={"reason": str(error)})
    return ServiceError(Reason.GALLERY_DAMAGED, str(error))


def _caller_left() -> bool:
    """Return whether the call itself is being cancelled, rather than something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _why_left(context: Context) -> grpc.StatusCode:
    """Return whether the caller's deadline passed or it cancelled the call.

    A deadline travels as a duration, which the server counts from when it reads it, so the caller's ends a little before.
    """
    end = deadline(context)
    late = end is not None and end - time.monotonic() < _TRANSIT_S
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


def _request_id(context: Context) -> str:
    """Return the caller's request id, or a new one if it could not be sent back: gRPC receives more than it can send."""
    given = _metadata(context, REQUEST_ID)
    usable = 0 < len(given) <= _LONGEST_REQUEST_ID and given.isascii() and given.isprintable()
    return given if usable else uuid.uuid4().hex


def _metadata(context: Context, key: str) -> str:
    return next((str(value) for name, value in context.invocation_metadata() or () if name == key), "")


def _log_call(call: Call, code: grpc.StatusCode, reason: Reason | None, seconds: float) -> None:
    fields = {"method": call.method, "peer": call.peer, "code": code.name, "duration_ms": round(1e3 * seconds, 3)}
    if call.caller is not None and call.caller is not ANYBODY:
        fields["caller"] = call.caller.name
    _log.info("call", extra=fields if reason is None else {**fields, "reason": reason.value})


def _traced(tracing: "Tracing", method: str, context: Context) -> "TracedCall":
    """Begin the span of a call, with the names and attributes that OpenTelemetry has for gRPC."""
    name = method.removeprefix("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": name, "vmmr.request_id": logs.request_id.get("")}
    return tracing.call(name, context.invocation_metadata() or (), attributes)


def _end(traced: "TracedCall", code: grpc.StatusCode, reason: Reason | None) -> None:
    attributes = {"rpc.response.status_code": code.name}
    traced.end(
        attributes if reason is None else {**attributes, "error.type": reason.value}, failed=code in _SERVER_FAILED
    )
