"""Flows and their calls, in threads that wait."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar

from vmmr._calls import Call
from vmmr._connection import Connection, new_request_id, reply_to
from vmmr._deadlines import TimeLeft
from vmmr._errors import VmmrError
from vmmr._flows import Flow, Reply

T = TypeVar("T")

Start: TypeAlias = Callable[[Call[Any], str], Callable[[], Reply[Any]]]
"""From a call and its request id to a function that waits for the reply."""


class Running(Generic[T]):
    """A flow between two of its calls: one has been started, its reply has yet to be taken."""

    def __init__(self, flow: Flow[T], start: Start) -> None:
        self._flow = flow
        self._start = start
        self._request_id = new_request_id()
        self._reply: Callable[[], Reply[Any]] | None = None
        self._result: T
        self._advance(lambda: next(flow))

    def result(self) -> T:
        while self._reply is not None:
            try:
                reply = self._reply()
            except VmmrError as error:
                self._advance(partial(self._flow.throw, error))
            else:
                self._advance(partial(self._flow.send, reply))
        return self._result

    def _advance(self, resume: Callable[[], Call[Any]]) -> None:
        try:
            call = resume()
        except StopIteration as end:
            self._reply, self._result = None, end.value
            return
        time.sleep(call.after_s)
        try:
            self._reply = self._start(call, self._request_id)
        except VmmrError as error:
            self._advance(partial(self._flow.throw, error))


def blocking(connection: Connection, time_left: TimeLeft, call: Call[Any], request_id: str) -> Callable[[], Reply[Any]]:
    """Sends the call when its reply is asked for: cheaper than a future, if there is nothing to do meanwhile."""

    def reply() -> Reply[Any]:
        method = connection.method(call)
        sent = perf_counter()
        with connection.errors(call, request_id):
            message = method(call.request, timeout=time_left(), metadata=connection.metadata(request_id))
        return reply_to(call, message, perf_counter() - sent, request_id)

    return reply


class InFlight:
    """Calls that are sent at once, and can be cancelled all together."""

    def __init__(self, connection: Connection, time_left: TimeLeft) -> None:
        self._connection = connection
        self._time_left = time_left
        self._rpcs: set[Any] = set()

    def start(self, call: Call[Any], request_id: str) -> Callable[[], Reply[Any]]:
        method = self._connection.method(call)
        sent = perf_counter()
        received: Future[float] = Future()
        with self._connection.errors(call, request_id):
            rpc = method.future(call.request, timeout=self._time_left(), metadata=self._connection.metadata(request_id))
        rpc.add_done_callback(lambda _: received.set_result(perf_counter()))
        self._rpcs.add(rpc)
        return partial(self._reply, call, request_id, rpc, sent, received)

    def cancel(self) -> None:
        for rpc in self._rpcs:
            rpc.cancel()

    def _reply(self, call: Call[Any], request_id: str, rpc: Any, sent: float, received: "Future[float]") -> Reply[Any]:
        # The time of the reply's arrival, not of its taking up: in between, the caller works on earlier photos.
        round_trip_s = received.result() - sent
        self._rpcs.discard(rpc)
        with self._connection.errors(call, request_id):
            message = rpc.result()
        return reply_to(call, message, round_trip_s, request_id)
