"""Processes that work for this one, and end when it does, however it does."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Protocol

from svckit.cli import CommandError
from svckit.signals import interrupts_blocked

_POLL_S = 0.2


class Task(Protocol):
    """What a process is given to do; pickled."""

    def __call__(self, on_added: Callable[[int], Any]) -> None:
        """Tells `on_added` of the work as it is done, in some unit."""


def run(tasks: Sequence[Task], workers: int, begin: Callable[[], Any], on_added: Callable[[int], Any]) -> None:
    """Runs the tasks, in so many spawned processes at a time; `begin` runs first in each, and is pickled.

    Spawned, not forked: faiss' threads do not survive a fork. Raises what a task raises, CommandError if a process is killed.
    """
    context = multiprocessing.get_context("spawn")
    added = context.RawArray("q", len(tasks))  # an element a task: only its process writes it
    told = 0
    with _pool(workers, context, begin, added) as pool:
        with interrupts_blocked():
            left = {pool.submit(_run, task, number) for number, task in enumerate(tasks)}
        while left:
            done, left = wait(left, _POLL_S, FIRST_EXCEPTION)
            now = sum(added)
            on_added(now - told)
            told = now
            for future in done:
                _result(future)


@contextmanager
def _pool(workers: int, context: Any, begin: Callable[[], Any], added: Any) -> Iterator[ProcessPoolExecutor]:
    """After the block, or when this process is killed, the workers end at once, whatever they are at: one may still start.

    Ctrl-C has to wait meanwhile: Python takes a thread whose `join` it interrupts for one that has ended.
    """
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin, (watched, begin, added))
    others = set(multiprocessing.active_children())
    try:
        yield pool
    finally:
        with interrupts_blocked():
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            pool.shutdown(cancel_futures=True)
            held.close()
            watched.close()


def _result(future: Any) -> None:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise CommandError(
            "a process that this command had started was killed, perhaps for want of memory: with fewer --workers it "
            "needs less, and goes on from where it was"
        ) from error


class _This:
    """What a worker knows."""

    added: Any


def _begin(watched: Connection, begin: Callable[[], Any], added: Any) -> None:
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()
    _This.added = added
    begin()


def _end_with_parent(watched: Connection) -> None:
    """Nothing is ever sent: reading ends when the other end is closed, as that of a dead process is."""
    try:
        watched.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _run(task: Task, number: int) -> None:
    def on_added(amount: int) -> None:
        _This.added[number] += amount

    task(on_added)
