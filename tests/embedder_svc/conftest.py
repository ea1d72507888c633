import io
import json
import os
import random
import runpy
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import pytest
from PIL import Image
from vmmr.embedder.v1 import embedder_pb2_grpc

TIMEOUT_S = 30
ROOT = Path(__file__).parents[2]
STANFORD = ROOT.parent / "shared" / "data" / "stanford_cars" / "train"


@pytest.fixture(scope="session")
def make_bundle():
    """`make_bundle(path, **fields)` writes a bundle whose network takes microseconds; see tiny_bundle.py."""
    return runpy.run_path(str(Path(__file__).with_name("tiny_bundle.py")))["make"]


@pytest.fixture(scope="session")
def tiny_bundle(make_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    make_bundle(path)
    return path


@pytest.fixture(scope="session")
def real_photos():
    """Two hundred real car photos, the same ones every time."""
    paths = sorted(STANFORD.glob("*/*.jpg"))
    if not paths:
        pytest.skip(f"no photos in {STANFORD}")
    return [path.read_bytes() for path in random.Random(0).sample(paths, 200)]


@pytest.fixture(scope="session")
def scene():
    """A picture (72, 96, 3) that no flip or turn maps to itself, smooth enough for JPEG."""
    y, x = np.mgrid[0:72, 0:96]
    pixels = np.stack([255 * x / 95, 255 * y / 71, 127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 5)], axis=-1)
    return pixels.round().astype(np.uint8)


@pytest.fixture(scope="session")
def encode():
    """`encode(pixels, "PNG", **options)`: an encoded photo."""

    def encoded(pixels, form, **options):
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        file = io.BytesIO()
        image.save(file, form, **options)
        return file.getvalue()

    return encoded


class Process:
    """`vmmr-embedder serve` as a process; its log lines are read as they come."""

    def __init__(self, *flags, env=None):
        command = [
            sys.executable,
            "-m",
            "embedder_svc",
            "serve",
            "--port",
            "0",
            "--metrics-port",
            "0",
            *map(str, flags),
        ]
        self.popen = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | (env or {}))
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

    def ready(self) -> dict:
        """Its log line that says it is ready, with its ports."""
        with self._more:
            assert self._more.wait_for(lambda: self._ended or self.logged("ready"), TIMEOUT_S), self.lines
            assert self.logged("ready"), "".join(self.lines)
            return self.logged("ready")[0]

    def logged(self, message) -> list[dict]:
        """The log lines with this message, so far."""
        lines = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [line for line in lines if line["message"] == message]

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


def _spawn():
    """Starts the server with the given flags, as a process."""
    with ExitStack() as stack:
        yield lambda *flags, **options: stack.enter_context(Process(*flags, **options))


def _dial():
    """A stub for the server at a port, without retries: what the server says is what a test sees."""
    with ExitStack() as stack:

        def stub(port):
            options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
            stack.callback(channel.close)
            return embedder_pb2_grpc.EmbedderServiceStub(channel)

        yield stub


spawn, module_spawn = pytest.fixture(_spawn), pytest.fixture(_spawn, scope="module")
dial, module_dial = pytest.fixture(_dial), pytest.fixture(_dial, scope="module")
