import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from numpy.typing import NDArray
from vmmr.search.v1 import search_pb2_grpc

from search_svc.build import IndexSpec, build_version
from search_svc.labels import parse
from search_svc.version import IndexVersion

MODEL = "c0ffee" + 58 * "0"
TIMEOUT_S = 30


def _build_index(
    vectors: NDArray[Any],
    *,
    names: list[str] | None = None,
    spec: IndexSpec | None = None,
    directory: Path | None = None,
) -> IndexVersion:
    directory = directory or Path(tempfile.mkdtemp(prefix="vmmr-index-"))
    names = names or [f"make_model {row % 7}_{2000 + row % 3}" for row in range(len(vectors))]
    return build_version(
        directory,
        embeddings=vectors,
        item_ids=[f"photo {row}.jpg" for row in range(len(vectors))],
        labels=[parse(name) for name in names],
        uris=[f"photos/{row}.jpg" for row in range(len(vectors))],
        model=MODEL,
        model_name="test",
        spec=spec or IndexSpec(),
    )


@pytest.fixture(scope="session")
def build_index() -> Callable[..., IndexVersion]:
    """Builds an index version over vectors, in a directory of its own unless one is given."""
    return _build_index


class Process:
    """`vmmr-search serve` as a process, on free ports, its log in a file."""

    def __init__(self, directory: Path, *flags: Any, env: dict[str, str] | None = None) -> None:
        self._ports = directory / "ports.json"
        self._log = directory / "stderr"
        command = [sys.executable, "-m", "search_svc", "serve", "--port", "0", "--metrics-port", "0"]
        with self._log.open("w") as log:
            self.popen = subprocess.Popen(
                [*command, "--port-file", str(self._ports), *map(str, flags)], stderr=log, env=os.environ | (env or {})
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.wait()

    def ports(self) -> dict[str, int]:
        """Its ports, as soon as it takes calls."""
        limit = time.monotonic() + TIMEOUT_S
        while not self._ports.exists():
            assert self.popen.poll() is None, self._log.read_text()
            assert time.monotonic() < limit, self._log.read_text()
            time.sleep(0.01)
        return json.loads(self._ports.read_text())

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self.popen.wait(TIMEOUT_S)

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Its log lines with this message."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["message"] == message]

    def said(self) -> list[str]:
        """What it wrote that is no log line."""
        return [line for line in self._log.read_text().splitlines() if not line.startswith("{")]


def _spawning():
    """Starts servers with the given flags, as processes."""
    with ExitStack() as stack:

        def spawn(*flags, **options):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            return stack.enter_context(Process(directory, *flags, **options))

        yield spawn


def _dialling():
    """A stub for the server at a port, without retries: what the server says is what a test sees."""
    with ExitStack() as stack:

        def dial(port):
            options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
            stack.callback(channel.close)
            return search_pb2_grpc.SearchServiceStub(channel)

        yield dial


spawn, module_spawn = pytest.fixture(_spawning), pytest.fixture(_spawning, scope="module")
dial, module_dial = pytest.fixture(_dialling), pytest.fixture(_dialling, scope="module")
