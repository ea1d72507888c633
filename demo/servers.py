"""Starts and stops the two servers, each as a process of its own."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.commands import ROOT, program, tail
from demo.screen import step
from svckit.cli import CommandError
from svckit.probe import health

_START_S, _STOP_S = 240.0, 40.0
_LOOK_S = 0.05


@dataclass(frozen=True)
class Pair:
    """The addresses of the two servers, `host:port`."""

    embedder: str
    search: str


@contextmanager
def serving(work: Path, index: Path | None = None) -> Iterator[Pair]:
    """Run both servers while the block lasts; then stop both. Raises CommandError if one does not end with exit code 0.

    Without `index` the index that ships is served. If the block or a server fails, the ends of their logs go to stderr.
    """
    with ExitStack() as stack:
        with step("serve") as starting:
            embedder = stack.enter_context(running("embedder", work))
            search = stack.enter_context(running("search", work, *(() if index is None else ("--index", index))))
            pair = Pair(embedder.address(), search.address())
            starting.result = f"embedder on {pair.embedder}, search on {pair.search}"
        yield pair
        with step("stop") as stopping:
            for server in (embedder, search):
                server.stop()
            stopping.result = "both servers drained, and ended with exit code 0"


class Server:
    def __init__(self, name: str, command: Sequence[str | Path], log: Path, port_file: Path) -> None:
        self.log = log
        self._name = name
        self._port_file = port_file
        self._port_file.unlink(missing_ok=True)
        with log.open("wb") as file:
            # A session of its own: Ctrl-C in the terminal reaches only this process, which then stops the server.
            self.process = subprocess.Popen(  # noqa: S603 (our own command)
                [*command, "--port", "0", "--port-file", port_file],
                cwd=ROOT,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def address(self) -> str:
        """Wait until the server is healthy; return its address. Raises CommandError if it ends, or takes too long."""
        address = f"127.0.0.1:{self.port()}"
        self._wait(lambda: health(address) == "SERVING")
        return address

    def port(self) -> int:
        """Wait until the server has told its port; return it. Raises CommandError if it ends, or takes too long."""
        self._wait(self._port_file.exists)
        return int(json.loads(self._port_file.read_text())["port"])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"the {self._name} server did not stop within {_STOP_S:.0f} s") from error
        if code:
            raise CommandError(f"the {self._name} server ended with exit code {code}")

    def _wait(self, ready: Callable[[], bool]) -> None:
        ends = time.monotonic() + _START_S
        while not ready():
            if self.process.poll() is not None:
                raise CommandError(f"the {self._name} server ended with exit code {self.process.returncode}")
            if time.monotonic() > ends:
                raise CommandError(f"the {self._name} server was not ready within {_START_S:.0f} s")
            time.sleep(_LOOK_S)


@contextmanager
def running(name: str, work: Path, *settings: str | Path) -> Iterator["Server"]:
    """Run the server `vmmr-NAME serve` with these settings while the block lasts. Its log is `work`/NAME.log."""
    command = (program(f"vmmr-{name}"), "serve", *settings)
    server = Server(name, command, work / f"{name}.log", work / f"{name}.ports.json")
    try:
        yield server
    except Exception:
        print(f"\nthe end of {server.log}:\n{tail(server.log)}", file=sys.stderr)
        raise
    finally:
        server.process.kill()
        server.process.wait()
