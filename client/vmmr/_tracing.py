"""The trace that calls belong to: that of the caller's OpenTelemetry, if it uses it, or one that was given by its header."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

Metadata = tuple[tuple[str, str], ...]

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_given: ContextVar[str] = ContextVar("vmmr_traceparent", default="")
_UNTRACED: AbstractContextManager[Metadata] = nullcontext(())


@contextmanager
def traceparent(value: str) -> Iterator[None]:
    """Send this W3C `traceparent` with the calls of all operations that start within the block.

    It is for programs that know their trace without OpenTelemetry. Where `opentelemetry-api` is used and a span is active, the
    client needs none: it makes a span for each call, below the active one, and sends that. What is given here comes first.

    It counts for the thread or task that the block is in, and for tasks that start within it. Raise ValueError unless it is a
    `traceparent` of version 00.
    """
    if not _TRACEPARENT.fullmatch(value):
        raise ValueError(f"a traceparent is 00-TRACE-PARENT-FLAGS in hexadecimal digits, got {value!r}")
    before = _given.set(value)
    try:
        yield
    finally:
        _given.reset(before)


def calling(method: Callable[[], str]) -> AbstractContextManager[Metadata]:
    """Return a block to make a call in, that yields the metadata which tell the service of the trace: none if there is no trace.

    `method` returns the method's full name, which names the call's span.
    """
    if given := _given.get():
        return nullcontext((("traceparent", given),))
    # Whoever has a span has imported this, so that others need not have it, nor pay for it.
    api = sys.modules.get("opentelemetry.trace")
    if api is None or not api.get_current_span().get_span_context().is_valid:
        return _UNTRACED
    return _in_span(api, method())


@contextmanager
def _in_span(api: Any, method: str) -> Iterator[Metadata]:
    from opentelemetry import propagate  # noqa: PLC0415  # as above

    attributes = {"rpc.system.name": "grpc", "rpc.method": method}
    tracer = api.get_tracer("vmmr")
    with tracer.start_as_current_span(method, kind=api.SpanKind.CLIENT, attributes=attributes, record_exception=False):
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        yield tuple(carrier.items())
