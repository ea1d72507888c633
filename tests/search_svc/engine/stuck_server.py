"""Runs `vmmr-search` with one shard that does not answer: `python stuck_server.py SHARD LOCK waiting|searching COMMAND...`.

While another process holds the file LOCK, searches of the shard whose first row is SHARD do not end: they wait, or search in
faiss over and over. Exact searches are not held up. Only such a search can be late, and only once it has begun; it is so
after half a second if its time ends within a minute, else never.
"""

import fcntl
import itertools
import logging
import sys
import threading
import time
from pathlib import Path

from search_svc.__main__ import main
from search_svc.engine import local
from search_svc.engine.shard import Shard
from search_svc.engine.shard_thread import ShardThread

TIMEOUT_S = 60
FIRST_ROW, LOCK, SEARCHING = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "searching"
answer, submit, ended = Shard.answer, ShardThread.submit, local._ended
here = threading.local()  # with `told`, of the search that the thread is at: an event, set when it is stuck
numbers = itertools.count(1)


def held(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def slow(shard, question):
    if shard.rows.start == FIRST_ROW and question.params is not None:
        with LOCK.open() as lock:
            if held(lock):
                here.told.set()
                logging.getLogger("stuck").info("held %d", next(numbers))
            while SEARCHING and held(lock):
                answer(shard, question)
            fcntl.flock(lock, fcntl.LOCK_SH)
    return answer(shard, question)


def submitted(thread, work):
    def working():
        here.told = told
        return work()

    told = threading.Event()
    future = submit(thread, working)
    future.told = told
    future.add_done_callback(lambda _: told.set())
    return future


def ended_or_stuck(future, end):
    assert future.told.wait(TIMEOUT_S)
    now = time.monotonic()
    return ended(future, now + 0.5 if end is not None and end < now + TIMEOUT_S else end)


Shard.answer, ShardThread.submit, local._ended = slow, submitted, ended_or_stuck
del sys.argv[1:4]
main()
