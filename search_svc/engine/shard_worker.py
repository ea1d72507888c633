"""The thread that works for one shard, and what becomes of it when it is late."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)

MOST_ABANDONED = 4
"""Threads of one shard that may be abandoned at a time. While so many are, it takes no tasks."""


@dataclass(frozen=True)
class _Task:
    work: Callable[[], Any]
    future: Future[Any]
    """Never says that it is running, so that it can be cancelled at any time."""

    def do(self) -> None:
        # Of a task that was cancelled meanwhile nobody wants to hear.
        with suppress(InvalidStateError):
            try:
                result = self.work()
            except BaseException as error:  # noqa: BLE001 (whatever it is, who waits must hear of it and the thread live on)
                self.future.set_exception(error)
            else:
                self.future.set_result(result)


class ShardWorker:
    """Does one task after the other, in a thread of its own. Thread-safe.

    A task that has begun cannot be ended, but its thread can be abandoned: it goes on alone, and another takes its place.
    """

    def __init__(self, name: str, prepare: Callable[[], None]) -> None:
        """`prepare` is what each thread does first."""
        self.name = name
        self._prepare = prepare
        self._tasks: deque[_Task] = deque()
        self._abandoned: set[threading.Thread] = set()
        self._doing: Future[Any] | None = None
        self._closed = False
        self._changed = threading.Condition(threading.Lock())  # guards all of these; quicker than its own, an RLock
        with self._changed:
            self._thread: threading.Thread | None = self._start()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def abandoned(self) -> int:
        """Threads that were abandoned, and have not ended."""
        return len(self._abandoned)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """What comes of the work; cancelled at once if there is no thread to do it."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed or self._thread is None:
                future.cancel()
            else:
                self._tasks.append(_Task(work, future))
                self._changed.notify()
        return future

    def abandon(self, future: Future[Any]) -> bool:
        """Cancels a task, and abandons the thread if it is at it. False if the task has ended."""
        with self._changed:
            if not future.cancel():
                return False
            if future is self._doing:
                self._leave_alone()
                room = len(self._abandoned) < MOST_ABANDONED
                self._thread = self._start() if room else None
                _log.warning("shard abandoned", extra={"shard": self.name, "abandoned": len(self._abandoned)})
            return True

    def interrupt(self) -> None:
        """Cancels all tasks; the thread is abandoned if it is at one. No more are taken."""
        with self._changed:
            self._end()
            if self._doing is not None and self._doing.cancel():
                self._leave_alone()

    def close(self) -> None:
        """Waits for the task that has begun, and ends the thread. Abandoned ones end when they can."""
        with self._changed:
            self._end()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _end(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.future.cancel()
        self._changed.notify()

    def _leave_alone(self) -> None:
        assert self._thread is not None
        self._abandoned.add(self._thread)
        self._thread = self._doing = None

    def _start(self) -> threading.Thread:
        # A daemon: the interpreter does not wait for those that are abandoned.
        thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        self._prepare()
        while task := self._next():
            task.do()

    def _next(self) -> _Task | None:
        """The next task of the thread that asks; None if it is to end."""
        with self._changed:
            if not self._belongs():
                return None
            self._doing = None
            while not self._closed:
                if not self._tasks:
                    self._changed.wait()
                elif not (task := self._tasks.popleft()).future.cancelled():
                    self._doing = task.future
                    return task
        return None

    def _belongs(self) -> bool:
        """Whether the thread that asks is the worker's; one that was abandoned is so again if there is no other."""
        thread = threading.current_thread()
        if thread in self._abandoned:
            self._abandoned.remove(thread)
            _log.info("abandoned search ended", extra={"shard": self.name, "abandoned": len(self._abandoned)})
            if self._thread is None and not self._closed:
                self._thread = thread
        return thread is self._thread
