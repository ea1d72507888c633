"""Worker processes, which end when the process that started them ends, however it ends."""

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
    """A piece of work for a worker process. It is pickled."""

    def __call__(self, on_added: Callable[[int], Any]) -> None:
        """Do the work; call `on_added` with the amount that was done since the last call, in a unit of the task's own."""


def run(tasks: Sequence[Task], workers: int, begin: Callable[[], Any], on_added: Callable[[int], Any]) -> None:
    """Run the tasks in so many processes at a time; `begin`, which is pickled, runs first in each process.

    Processes are spawned, not forked, since faiss' threads do not survive a fork. Raises what a task raises, and CommandError
    if a process is killed.
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
    """Yield a pool whose workers end at once after the block, or when this process is killed, whatever they are doing.

    Ctrl-C waits while they are ended: if it interrupted the `join` of a thread, Python would take the thread for ended.
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


class _Worker:
    """The state of this process, if it is a worker."""

    added: Any
    """An element a task: the amount that was done of it."""


def _begin(watched: Connection, begin: Callable[[], Any], added: Any) -> None:
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()
    _Worker.added = added
    begin()


def _end_with_parent(watched: Connection) -> None:
    # Nothing is ever sent: reading ends when the other end is closed, which it also is when its process dies.
    try:
        watched.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _run(task: Task, number: int) -> None:
    def on_added(amount: int) -> None:
        _Worker.added[number] += amount

    task(on_added)
