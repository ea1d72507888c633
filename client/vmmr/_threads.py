"""Run flows and make their calls in threads that wait for the replies."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from threading import Event, Lock
from time import perf_counter
from typing import Any, TypeAlias, TypeVar

from vmmr._calls import Call
from vmmr._connection import Connection, new_request_id, reply_to
from vmmr._deadlines import TimeLeft
from vmmr._errors import CallError, VmmrError
from vmmr._flows import Flow, Reply
from vmmr._retries import Retries

T = TypeVar("T")

_LOOK_UP_S = 0.2
"""Seconds between two looks at whether there was a Ctrl-C."""

Send: TypeAlias = Callable[[Call[Any], str], Reply[Any]]
"""Makes a call that has a request id, and waits for the reply."""


def run(flow: Flow[T], send: Send) -> T:
    """Make the calls of a flow, one after the other, and return its result."""
    request_id = new_request_id()
    try:
        call = next(flow)
        while True:
            try:
                reply = send(call, request_id)
            except VmmrError as error:
                call = flow.throw(error)
            else:
                call = flow.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def result_of(future: "Future[T]") -> T:
    """Wait for a future, and return its result or raise its error.

    A Ctrl-C that comes just before a wait without end is not heard until that ends: the signal's handler is called between two steps of
    Python, and there is none. On a busy machine that happens. So this looks up now and then.
    """
    while not future.done():
        with suppress(TimeoutError):
            future.result(_LOOK_UP_S)
    return future.result()


def patient(connection: Connection, send: Send, time_left: TimeLeft, pause: Callable[[float], object]) -> Send:
    """Return how to make calls again that `send` makes once, for as long as there is time. `pause` waits between attempts."""

    def send_patiently(call: Call[Any], request_id: str) -> Reply[Any]:
        retries = Retries(time_left(), repeatable=call.repeatable, reconnect_s=connection.reconnect_s)
        while True:
            try:
                return send(call, request_id)
            except CallError as error:
                pause_s = retries.pause_s(error)
                if retries.attempts == 1:
                    connection.check_tls(call, error)
                pause(pause_s)

    return send_patiently


def blocking(connection: Connection, time_left: TimeLeft) -> Send:
    """Return how to make calls that only their deadline ends: they cost less than calls that can be cancelled."""

    def send(call: Call[Any], request_id: str) -> Reply[Any]:
        method = connection.method(call)
        sent = perf_counter()
        with connection.calling(call, request_id) as metadata:
            message = method(call.request, timeout=time_left(), metadata=metadata)
        return reply_to(call, message, perf_counter() - sent, request_id)

    return patient(connection, send, time_left, time.sleep)


class Flows:
    """Runs flows side by side, each in a thread, and can end them all together."""

    def __init__(self, connection: Connection, time_left: TimeLeft, *, most: int) -> None:
        self._connection = connection
        self._time_left = time_left
        self._threads = ThreadPoolExecutor(most, "vmmr-batch")
        self._ended = Event()
        self._rpcs: set[Any] = set()
        self._lock = Lock()

    def start(self, flow: Flow[T]) -> "Future[T]":
        send = patient(self._connection, self._send, self._time_left, self._pause)
        return self._threads.submit(copy_context().run, run, flow, send)

    def end(self) -> None:
        """Cancel what is under way. Call it when nobody waits for results any more."""
        with self._lock:
            self._ended.set()
            under_way = list(self._rpcs)
        for rpc in under_way:
            rpc.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _pause(self, seconds: float) -> None:
        if self._ended.wait(seconds):
            raise CancelledError

    def _send(self, call: Call[Any], request_id: str) -> Reply[Any]:
        method = self._connection.method(call)
        sent = perf_counter()
        with self._connection.calling(call, request_id) as metadata:
            rpc = method.future(call.request, timeout=self._time_left(), metadata=metadata)
            with self._cancellable(rpc):
                message = rpc.result()
        return reply_to(call, message, perf_counter() - sent, request_id)

    @contextmanager
    def _cancellable(self, rpc: Any) -> Iterator[None]:
        with self._lock:
            self._rpcs.add(rpc)
            ended = self._ended.is_set()
        if ended:
            rpc.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._rpcs.discard(rpc)
