"""The servers under test: two over one index, killed one by one or all at once, and started again.

Two of one process each that are forked (tests.crash.zygote), or one of two workers, started as an operator does.
"""

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import grpc
import psutil

from tests.crash.zygote import Zygote

START_S = 120
_WORKERS = 2


class RefusedError(Exception):
    """A server did not start; has what it said."""


class Server:
    """All of them, as one."""

    def __init__(self, index: Path, log: Path, zygote: Zygote) -> None:
        self.index = index
        self.starts = self.forks = 0
        self._log = log
        self._zygote = zygote
        self._popen: subprocess.Popen | None = None
        self._pids: list[int] = []
        self._ports: list[int] = []
        self._said = 0

    def start(self, *, forked: bool) -> None:
        """Returns when all serve. Raises RefusedError if they do not."""
        self._said = self._log.stat().st_size if self._log.exists() else 0
        self._clear_ports()
        if forked:
            self._pids = [self._fork(seat) for seat in range(_WORKERS)]
            self.forks += 1
        else:
            arguments = ("--workers", _WORKERS, "--port-file", self._port_file(0), "--compact-at", 400)
            command = [sys.executable, "-m", "search_svc", *self._serve(), *map(str, arguments)]
            with self._log.open("a") as log:
                self._popen = subprocess.Popen(command, stderr=log, start_new_session=True)
            self.starts += 1
        self.wait()

    def channel(self) -> grpc.Channel:
        """A connection of its own, to any of them."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        ports = self._ports or [1]
        return grpc.insecure_channel(f"127.0.0.1:{random.choice(ports)}", options)

    def wait(self) -> None:
        """Until all that are under way serve."""
        end = time.monotonic() + START_S
        files = [self._port_file(seat) for seat in range(len(self._pids) or 1)]
        while not all(map(Path.exists, files)):
            if self._has_ended():
                said = self.said()
                self.kill_all()
                raise RefusedError(said)
            if time.monotonic() > end:
                raise RuntimeError(f"they did not start in time; {self.said()[-3000:]}")
            time.sleep(0.01)
        self._ports = [json.loads(file.read_text())["port"] for file in files]

    def said(self) -> str:
        """What was said since the last start."""
        return self._log.read_text()[self._said :]

    def kill_one(self, rng: random.Random) -> None:
        """A worker, or one of the servers; it is started again, by its supervisor or here."""
        if self._popen:
            self._kill_child(rng, "spawn_main")
            return
        seat = rng.randrange(_WORKERS)
        self._kill(self._pids[seat])
        self._port_file(seat).unlink(missing_ok=True)
        self._pids[seat] = self._fork(seat)

    def kill_compaction(self, rng: random.Random) -> bool:
        """Whether one ran that a server had begun."""
        return self._kill_child(rng, "compact")

    def kill_all(self) -> None:
        """And what they have started; at once."""
        self._ports = []
        processes = self._children()
        for pid in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(pid))
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for pid in self._pids:
            self._zygote.wait(pid)
        if self._popen:
            self._popen.wait()
        psutil.wait_procs(processes, timeout=10)
        self._pids, self._popen = [], None

    def _fork(self, seat: int) -> int:
        arguments = (*self._serve(), "--port-file", self._port_file(seat), "--compact-at", 0)
        return self._zygote.start(*arguments, log=self._log)

    def _serve(self) -> list[str]:
        return ["serve", "--index", str(self.index), "--port", "0", "--log-level", "warning", "--keep-versions", "3"]

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
        self._zygote.wait(pid)

    def _has_ended(self) -> bool:
        if self._popen:
            return self._popen.poll() is not None
        ended = [pid for pid in self._pids if self._zygote.ended(pid) is not None]
        self._pids = [pid for pid in self._pids if pid not in ended]
        return bool(ended)

    def _port_file(self, seat: int) -> Path:
        return self.index.parent / f"ports-{seat}.json"

    def _clear_ports(self) -> None:
        self._ports = []
        for seat in range(_WORKERS):
            self._port_file(seat).unlink(missing_ok=True)

    def _all(self) -> list[int]:
        return [*self._pids, *([self._popen.pid] if self._popen else [])]

    def _kill_child(self, rng: random.Random, kind: str) -> bool:
        found = []
        for process in self._children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(kind in word for word in process.cmdline()):
                    found.append(process)
        if found:
            with contextlib.suppress(psutil.NoSuchProcess):
                rng.choice(found).kill()
        return bool(found)

    def _children(self) -> list[psutil.Process]:
        found = []
        for pid in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                found += psutil.Process(pid).children(recursive=True)
        return found
