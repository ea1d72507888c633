"""What every request and every answer has, whatever it is about: a request id, the headers of security, a line in the log."""

import logging
import time
import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING

import vmmr
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from svckit import logs
from web.door.metrics import WebMetrics

if TYPE_CHECKING:  # what it imports is imported where requests are traced alone
    from svckit.spans import TracedCall, Tracing

_log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_LONGEST_REQUEST_ID = 128

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""The headers of every answer. A route that sets one of them itself keeps its own value."""
_HSTS = "max-age=31536000"


class Envelope:
    """Gives every request its id and its line in the log, and every answer its headers. Only the server itself is further out."""

    def __init__(self, app: ASGIApp, metrics: WebMetrics, tracing: "Tracing | None" = None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        logs.request_id.set(request_id)
        await self._serve(scope, receive, _Sender(send, request_id, secure=scope["scheme"] == "https"), request_id)

    async def _serve(self, scope: Scope, receive: Receive, sender: "_Sender", request_id: str) -> None:
        started = time.perf_counter()
        self._metrics.began()
        traced = _traced(self._tracing, scope, request_id) if self._tracing else None
        try:
            with vmmr.request_id(request_id), traced.as_current() if traced else nullcontext():
                await self._app(scope, receive, sender)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.ended(scope["method"], route, sender.status, seconds, traced.exemplar if traced else None)
            _log_request(scope, route, sender.status, seconds)
            if traced:
                _end(traced, scope, route, sender.status)


class _Sender:
    """Sends an answer with the headers that all of them have, and remembers its status; 499 if none was sent."""

    def __init__(self, send: Send, request_id: str, *, secure: bool) -> None:
        self.status = 499
        self._send = send
        self._request_id = request_id
        self._secure = secure

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self._request_id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self._secure:
                headers["strict-transport-security"] = _HSTS
        await self._send(message)


def _request_id(scope: Scope) -> str:
    """Return the caller's request id, or a new one if the services would not take it."""
    given = Headers(scope=scope).get(REQUEST_ID, "")
    usable = 0 < len(given) <= _LONGEST_REQUEST_ID and given.isascii() and given.isprintable()
    return given if usable else uuid.uuid4().hex


def _traced(tracing: "Tracing", scope: Scope, request_id: str) -> "TracedCall":
    """Begin the span of a request, with the attributes that OpenTelemetry has for HTTP; its route is known when it has ended."""
    attributes = {"http.request.method": scope["method"], "vmmr.request_id": request_id}
    return tracing.call(scope["method"], Headers(scope=scope).items(), attributes)


def _end(traced: "TracedCall", scope: Scope, route: str, status: int) -> None:
    attributes: dict[str, str | int] = {"http.response.status_code": status}
    named = {} if route == "none" else {"name": f"{scope['method']} {route}"}
    traced.end(attributes | ({"http.route": route} if named else {}), failed=status >= 500, **named)


def _log_request(scope: Scope, route: str, status: int, seconds: float) -> None:
    peer = scope["client"][0] if scope.get("client") else ""
    # The route and not the path: a path may hold an answer's secret name.
    fields = {"method": scope["method"], "route": route, "peer": peer, "status": status}
    _log.info("request", extra={**fields, "duration_ms": round(1e3 * seconds, 3)})
