"""The thread that searches one shard, and that is abandoned when a search takes too long."""

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
"""Abandoned threads that a shard may have at a time. While it has so many, it takes no tasks."""


@dataclass(frozen=True)
class _Task:
    work: Callable[[], Any]
    future: Future[Any]
    """Is never marked as running, so that it can be cancelled at any time."""

    def do(self) -> None:
        # The result of a task that was cancelled meanwhile is dropped: nobody waits for it.
        with suppress(InvalidStateError):
            try:
                result = self.work()
            except BaseException as error:  # noqa: BLE001 (whatever it is, the caller must get it, and the thread go on)
                self.future.set_exception(error)
            else:
                self.future.set_result(result)


class ShardThread:
    """Runs one task after the other, in a thread of its own. Thread-safe.

    A task that has begun cannot be stopped, but its thread can be abandoned: the thread finishes the task alone, and
    another thread takes its place.
    """

    def __init__(self, name: str, prepare: Callable[[], None]) -> None:
        """Start the first thread. Each thread calls `prepare` before its first task."""
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
        """How many abandoned threads have not ended."""
        return len(self._abandoned)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Queue the work. The future is cancelled at once if there is no thread to do it."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed or self._thread is None:
                future.cancel()
            else:
                self._tasks.append(_Task(work, future))
                self._changed.notify()
        return future

    def abandon(self, future: Future[Any]) -> bool:
        """Cancel a task, and abandon the thread if it has begun the task. Return False if the task had ended already."""
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
        """Cancel all tasks, abandon the thread if it has begun one, and take no more."""
        with self._changed:
            self._end()
            if self._doing is not None and self._doing.cancel():
                self._leave_alone()

    def close(self) -> None:
        """Wait for the task that has begun, and end the thread. Abandoned threads end when their tasks do."""
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
        # A daemon, so that the interpreter does not wait for abandoned threads when it exits.
        thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        self._prepare()
        while task := self._next():
            task.do()

    def _next(self) -> _Task | None:
        """Wait for the next task of the calling thread; return None if the thread must end."""
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
        """Return whether the calling thread is the worker's. An abandoned thread becomes so again if there is no other."""
        thread = threading.current_thread()
        if thread in self._abandoned:
            self._abandoned.remove(thread)
            _log.info("abandoned search ended", extra={"shard": self.name, "abandoned": len(self._abandoned)})
            if self._thread is None and not self._closed:
                self._thread = thread
        return thread is self._thread
