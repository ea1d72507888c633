"""Runs a command and tells its time and memory: `python -m bench.lib.memory COMMAND ...`.

Memory is that of its process and of those that it starts, together, looked at fifty times a second. `own` is memory that only
these processes can hold (RssAnon); `with files` adds the pages of mapped files that are in memory just then (RssFile),
which the kernel may drop at any time.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_EVERY_S = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


def main(command: Sequence[str]) -> int:
    started = time.monotonic()
    own = with_files = 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        sizes = [rss(pid) for pid in tree(process.pid)]
        own = max(own, sum(anonymous for anonymous, _ in sizes))
        with_files = max(with_files, sum(sum(both) for both in sizes))
        time.sleep(_EVERY_S)
    took = time.monotonic() - started
    print(json.dumps({"seconds": round(took, 1), "own_mib": own >> 20, "with_files_mib": with_files >> 20}))
    return process.returncode


def tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield from tree(int(child))


def rss(pid: int) -> tuple[int, int]:
    """Return the resident bytes of a process: anonymous, and of mapped files; none if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in lines)
    anonymous, files = (int(fields.get(name, "0 kB").split()[0]) << 10 for name in ("RssAnon", "RssFile"))
    return anonymous, files


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
