"""Servers that a bench starts and stops."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.lib.paths import ROOT

_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Served:
    """A running server."""

    process: "subprocess.Popen[bytes]"
    address: str

    def cpu_s(self) -> float:
        """CPU seconds that it and its children have used."""
        import psutil  # noqa: PLC0415 (of the extra dev)

        own = psutil.Process(self.process.pid)
        return float(sum(sum(each.cpu_times()[:2]) for each in (own, *own.children(recursive=True))))


@contextmanager
def pair(*flags: object) -> Iterator[tuple[Served, Served]]:
    """Embedder and search service. `flags`: the embedder's."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        starting = [
            (stack.enter_context(server(work, name, *more)), work / f"{name}.port")
            for name, more in (("embedder_svc", flags), ("search_svc", ()))
        ]
        yield tuple(Served(process, ready(process, port)) for process, port in starting)


@contextmanager
def server(work: Path, module: str, *flags: object) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", module, "serve", "--port", "0", "--port-file", work / f"{module}.port", *flags]
    with (work / f"{module}.log").open("wb") as log:
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def ready(process: "subprocess.Popen[bytes]", port_file: Path) -> str:
    while not port_file.exists():
        if process.poll() is not None:
            sys.exit(f"the server ended:\n{port_file.with_suffix('.log').read_text()}")
        time.sleep(0.05)
    address = f"127.0.0.1:{json.loads(port_file.read_text())['port']}"
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(_TIMEOUT_S)
    return address
