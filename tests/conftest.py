"""What every test shares."""

import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

# Ray forks as it starts a node: in a process with a server, gRPC's part in that can wait for ever. It reads this as it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A call of Ray in a process that is not connected would start a cluster; its nodes end with the thread that made the call, and
# the process a minute after them.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

# Hundreds of processes are started: they compile our modules once, also where Python is told to keep nothing.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import grpc
import pytest
from hypothesis import settings
from xdist.scheduler import LoadGroupScheduling

TIMEOUT_S = 60

# The machines that run these tests are shared: how long an example takes says nothing about the code.
settings.register_profile("vmmr", deadline=None)
settings.load_profile("vmmr")


_UNRAISABLE_HOOK = pytest.StashKey[Any]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_UNRAISABLE_HOOK] = sys.unraisablehook


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have Ctrl-C raise KeyboardInterrupt in each test, and in the programs that it starts, and pytest hear of errors in finalizers.

    A shell without job control starts its background jobs deaf to Ctrl-C, and what they start inherits that. And a command that an
    earlier test has run in this process leaves it to end the process at once, and to print such errors as Python does.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = item.config.stash[_UNRAISABLE_HOOK]


# Processes that tests start must not oversubscribe the cores that pytest's own workers share.
os.environ.setdefault("OMP_NUM_THREADS", "1")


class _ByFile(LoadGroupScheduling):
    """Has the tests of a file, or of a group, run in one process: what they share is made once."""

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    return _ByFile(config, log)


@pytest.fixture
def lasting_port() -> int:
    """A port of 127.0.0.1 that is free, and stays so for who leaves it and comes again.

    The system gives it to nobody by chance: it is below those that it gives to who asks for any.
    """
    begin, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    while True:
        port = secrets.choice(range(int(begin) // 2, int(begin)))
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def stanford_cars(root: Path) -> Path:
    """Real photos, `train/<label>/<file>.jpg`, that some checkouts have beside them."""
    folder = root.parent / "shared/data/stanford_cars"
    if not folder.is_dir():
        pytest.skip("real photos: ../shared/data/stanford_cars is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def encode():
    """`encode(pixels, "PNG", **options)`: an encoded photo."""
    from PIL import Image  # not every test's environment has it

    def encoded(pixels, form, **options):
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        file = io.BytesIO()
        if form == "HEIF":
            import pillow_heif  # without making Pillow know of it

            image = pillow_heif.from_pillow(image)
            image.save(file, **({"enc_params": {"preset": "ultrafast"}} | options))
        else:
            image.save(file, form, **options)
        return file.getvalue()

    return encoded


@pytest.fixture(scope="session")
def scene():
    """A picture (72, 96, 3) that no flip or turn maps to itself, smooth enough for JPEG."""
    import numpy as np  # not every test's environment has it

    y, x = np.mgrid[0:72, 0:96]
    pixels = np.stack([255 * x / 95, 255 * y / 71, 127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 5)], axis=-1)
    return pixels.round().astype(np.uint8)


@pytest.fixture(scope="session")
def ray_address():
    """HOST:PORT of a Ray cluster of two nodes with a core each, processes of this machine. Tests that use it are in the group "ray"."""
    pytest.importorskip("ray", reason="NO RAY HERE: the tests of what runs on a cluster did not run")
    from demo.ray_nodes import ray_nodes

    with ray_nodes(2) as cluster:
        yield cluster.address


class Process:
    """A Python program under test, in a session of its own; its stderr is read as it comes."""

    def __init__(
        self,
        *arguments: Any,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        python: Path | str = sys.executable,
    ) -> None:
        self.popen = subprocess.Popen(
            [python, *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
            cwd=cwd,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        self.popen.stderr.close()

    def logged(self, message: str) -> list[dict[str, Any]]:
        """The JSON log lines with this message, so far."""
        lines = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [line for line in lines if line["message"] == message]

    def first(self, message: str, **fields: Any) -> dict[str, Any]:
        """The first log line with this message, and these fields, as soon as there is one."""
        return self.nth(message, 1, **fields)

    def nth(self, message: str, number: int, **fields: Any) -> dict[str, Any]:
        """The log line with this message, and these fields, of several the one with that number from 1 on, as soon as it is there."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.logged(message) if fields.items() <= line.items()]

        with self._more:
            assert self._more.wait_for(lambda: self._ended or len(found()) >= number, TIMEOUT_S), self.lines
        assert len(found()) >= number, "".join(self.lines)
        return found()[number - 1]

    def ready(self) -> dict[str, Any]:
        """A server's log line that says it is ready, with its ports."""
        return self.first("ready")

    def said(self) -> list[str]:
        """What it wrote that is no log line."""
        return [line for line in self.lines if not line.startswith("{")]

    def fatal(self) -> str:
        """Why a server ended, with exit code 1: its one line of that kind. It wrote nothing that is no log line."""
        assert (self.wait(), self.said()) == (1, [])
        (line,) = self.logged("ended by an error")
        assert line["level"] == "ERROR"
        return line["error"]

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        code = self.popen.wait(TIMEOUT_S)
        self._reader.join()
        return code

    def _read(self) -> None:
        for line in self.popen.stderr:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


def _running():
    """`run("-m", "package", "command", ...)` starts a Python program, which ends with the test or module."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Process(*arguments, **options))


def _connecting():
    """A channel to the server at a port, without retries: what the server says is what a test sees."""
    with ExitStack() as stack:

        def connect(port: int) -> grpc.Channel:
            options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
            return stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}", options))

        yield connect


@pytest.fixture
def run(tmp_path):
    """`run("-m", "package", "command", ...)` starts a Python program, which ends before the test's folder is removed."""
    yield from _running()


module_run = pytest.fixture(_running, scope="module")
connect, module_connect = pytest.fixture(_connecting), pytest.fixture(_connecting, scope="module")
