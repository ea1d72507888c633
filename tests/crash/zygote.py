"""Starts `vmmr-search` at the cost of a fork: from a process that has imported all of it, and has done nothing else.

Importing is three quarters of the CPU time of a start. What runs in a fork is the same code; a fork has no threads to lose, for nothing
has begun any. `python -m tests.crash.zygote` is that process: it reads commands from stdin, a line of JSON each, and answers them.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

from search_svc.__main__ import main as vmmr_search

_PR_SET_PDEATHSIG = 1


class Zygote:
    """The process, from the outside."""

    def __init__(self) -> None:
        # OpenBLAS begins its threads when it is loaded, and would have to begin them anew in every fork.
        env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.crash.zygote"]
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    def start(self, *arguments: object, log: Path) -> int:
        """Starts `vmmr-search` with these arguments; returns its process id. What it says is added to the log."""
        return self._ask({"start": [str(each) for each in arguments], "log": str(log)})

    def ended(self, pid: int) -> int | None:
        """The exit code, minus the signal that killed it; None if it runs. To be asked no more once it was told."""
        return self._ask({"ended": pid})

    def wait(self, pid: int) -> int:
        return self._ask({"wait": pid})

    def stop(self) -> None:
        """Ends it, and with it all that it has started."""
        self._popen.kill()
        self._popen.communicate()

    def _ask(self, command: dict):
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(f"{json.dumps(command)}\n".encode())
        self._popen.stdin.flush()
        return json.loads(self._popen.stdout.readline())


def serve() -> None:
    for line in sys.stdin:
        match json.loads(line):
            case {"start": arguments, "log": log}:
                answer = fork(arguments, log)
            case {"ended": pid}:
                found, status = os.waitpid(pid, os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if found else None
            case {"wait": pid}:
                answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps(answer), flush=True)


def fork(arguments: list[str], log: str) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, target in ((nothing, 0), (written, 1), (written, 2)):
            os.dup2(descriptor, target)
        sys.argv = ["vmmr-search", *arguments]
        vmmr_search()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 (a process of its own would end with it)
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
