"""The server under test: several workers over one index, killed in parts or as a whole, and started again."""

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_S = 60


class Server:
    def __init__(self, index: Path, workers: int, log: Path) -> None:
        self.index = index
        self.port = 0
        self.starts = 0
        self._workers = workers
        self._log = log
        self._popen = None

    def start(self) -> None:
        """Returns when it serves; on the port that it had before."""
        ports = self.index.parent / "ports.json"
        ports.unlink(missing_ok=True)
        command = [sys.executable, "-m", "search_svc", "serve", "--index", self.index, "--workers", self._workers]
        command += ["--port", self.port, "--port-file", ports, "--compact-at", 400, "--log-level", "warning"]
        with self._log.open("a") as log:
            self._popen = subprocess.Popen(list(map(str, command)), stderr=log, start_new_session=True)
        self.starts += 1
        end = time.monotonic() + START_S
        while not ports.exists():
            if self._popen.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start; {self._log} ends with: {self._log.read_text()[-3000:]}")
            time.sleep(0.02)
        self.port = json.loads(ports.read_text())["port"]

    def stop(self) -> None:
        self.kill_all()

    def channel(self) -> grpc.Channel:
        """A connection of its own, to whichever worker gets it."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options)

    def wait(self) -> None:
        """Until somebody answers."""
        end = time.monotonic() + START_S
        while True:
            with self.channel() as channel, contextlib.suppress(grpc.RpcError):
                stub = health_pb2_grpc.HealthStub(channel)
                if stub.Check(health_pb2.HealthCheckRequest(), timeout=1).status == 1:
                    return
            if time.monotonic() > end:
                raise RuntimeError(f"nobody answers; {self._log} ends with: {self._log.read_text()[-3000:]}")
            time.sleep(0.02)

    def kill_worker(self, rng: random.Random) -> bool:
        return self._kill_one(rng, "spawn_main")

    def kill_compaction(self, rng: random.Random) -> bool:
        """Whether one ran."""
        return self._kill_one(rng, "compact")

    def kill_all(self) -> None:
        """The supervisor, every worker, and what they have started; at once."""
        assert self._popen is not None
        processes = self._children()
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(self._popen.pid))
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait()
        psutil.wait_procs(processes, timeout=10)

    def _kill_one(self, rng: random.Random, kind: str) -> bool:
        found = []
        for process in self._children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(kind in word for word in process.cmdline()):
                    found.append(process)
        if found:
            with contextlib.suppress(psutil.NoSuchProcess):
                rng.choice(found).kill()
        return bool(found)

    def _children(self) -> list:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._popen.pid).children(recursive=True)
        return []
