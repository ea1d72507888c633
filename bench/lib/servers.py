"""Start servers, wait until they are ready, and stop them."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc

from bench.lib.paths import ROOT

_START_S = 600.0
"""TensorRT takes minutes to prepare a network."""
_STOP_S = 60.0
_LOOK_S = 0.01


@dataclass(frozen=True)
class Served:
    """A server that is ready."""

    pid: int | None
    address: str
    """`host:port`."""
    start_s: float = 0.0
    """Seconds from the start of the process until it listened."""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def cpu_s(self) -> float:
        """Return the CPU seconds that the server has used, its child processes included."""
        import psutil  # noqa: PLC0415 (of the extra dev)

        own = psutil.Process(self.pid)
        return float(sum(sum(each.cpu_times()[:2]) for each in (own, *own.children(recursive=True))))


@dataclass(frozen=True)
class Starting:
    """A server that was started, and is perhaps not ready yet."""

    process: "subprocess.Popen[bytes]"
    port_file: Path
    log: Path
    since: float
    """When it was started, a time of `time.perf_counter()`."""

    def ready(self) -> Served:
        """Wait until the server answers. Exit, with its log, if it ends or takes too long."""
        while not self.port_file.exists():
            if self.process.poll() is not None or time.perf_counter() > self.since + _START_S:
                sys.exit(f"the server did not start:\n{self.log.read_text()}")
            time.sleep(_LOOK_S)
        took = time.perf_counter() - self.since
        address = f"127.0.0.1:{json.loads(self.port_file.read_text())['port']}"
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(_START_S)
        return Served(self.process.pid, address, took)


@contextmanager
def serving(module: str, *flags: object, **where: Any) -> Iterator[Served]:
    """Run `python -m MODULE serve` with these flags while the block lasts. The server is ready when the block begins."""
    with starting(module, *flags, **where) as server:
        yield server.ready()


@contextmanager
def pair(*flags: object) -> Iterator[tuple[Served, Served]]:
    """Run the embedder and the search service that ship, both ready. `flags` are the embedder's."""
    with ExitStack() as stack:
        servers = [stack.enter_context(each) for each in (starting("embedder_svc", *flags), starting("search_svc"))]
        embedder, search = (server.ready() for server in servers)
        yield embedder, search


@contextmanager
def starting(
    module: str, *flags: object, root: Path = ROOT, env: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Starting]:
    """Start `python -m MODULE serve` with these flags, and stop it after the block. `root` is the checkout that it runs from.

    Exit, with its log, if it does not end well although the block did.
    """
    with tempfile.TemporaryDirectory() as directory:
        port_file, log = Path(directory) / "ports.json", Path(directory) / "log"
        command = [sys.executable, "-m", module, "serve", "--port", "0", "--port-file", port_file, *flags]
        code = os.environ | ({} if root == ROOT else {"PYTHONPATH": f"{root}:{root / 'client'}"})
        with log.open("wb") as file:
            since = time.perf_counter()
            process = subprocess.Popen(list(map(str, command)), cwd=root, stderr=file, env=code | env)
        try:
            yield Starting(process, port_file, log, since)
        finally:
            process.terminate()
            process.wait(_STOP_S)
        if process.returncode:
            sys.exit(f"the server ended with exit code {process.returncode}:\n{log.read_text()}")
