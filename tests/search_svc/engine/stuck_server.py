"""Runs `vmmr-search` with one shard that does not answer: `python stuck_server.py SHARD LOCK waiting|searching COMMAND...`.

While another process holds the file LOCK, searches of the shard whose first row is SHARD do not end: they wait, or search in
faiss over and over. Exact searches are not held up.
"""

import fcntl
import itertools
import logging
import sys
from pathlib import Path

from search_svc.__main__ import main
from search_svc.engine.shard import Shard

FIRST_ROW, LOCK, SEARCHING = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "searching"
search = Shard.search
numbers = itertools.count(1)


def held(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def slow(shard, *question):
    if shard.rows.start == FIRST_ROW:
        with LOCK.open() as lock:
            if held(lock):
                logging.getLogger("stuck").info("held %d", next(numbers))
            while SEARCHING and held(lock):
                search(shard, *question)
            fcntl.flock(lock, fcntl.LOCK_SH)
    return search(shard, *question)


Shard.search = slow
del sys.argv[1:4]
main()
