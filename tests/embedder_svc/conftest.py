import random
import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from vmmr.embedder.v1 import embedder_pb2_grpc


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
def car_bundle(make_bundle, tmp_path_factory):
    """A bundle with a detector, to which red is a car."""
    path = tmp_path_factory.mktemp("models") / "tiny-cars"
    make_bundle(path, detector={})
    return path


@pytest.fixture(scope="session")
def street():
    """`street({(column, row): red, ...})`: a picture (128, 128, 3), blue and green, with cars in some of its 4 x 4 fields."""

    def drawn(cars):
        y, x = np.mgrid[0:128, 0:128]
        pixels = np.stack([np.zeros_like(x), 60 + x // 2, 200 - y], axis=-1).astype(np.uint8)
        for (column, row), red in cars.items():
            field = pixels[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            field[..., 0], field[..., 1] = red, field[..., 1] // 8
        return pixels

    return drawn


@pytest.fixture(scope="session")
def real_photos(stanford_cars):
    """Two hundred real car photos, the same ones every time."""
    paths = sorted(stanford_cars.glob("train/*/*.jpg"))
    return [path.read_bytes() for path in random.Random(0).sample(paths, 200)]


SERVE = ("-m", "embedder_svc", "serve", "--port", "0", "--metrics-port", "0")


@pytest.fixture
def spawn(run):
    """Starts `vmmr-embedder serve` with the given flags, as a process, on free ports."""
    return partial(run, *SERVE)


@pytest.fixture(scope="module")
def module_spawn(module_run):
    return partial(module_run, *SERVE)


@pytest.fixture
def dial(connect):
    """A stub for the server at a port."""
    return lambda port: embedder_pb2_grpc.EmbedderServiceStub(connect(port))


@pytest.fixture(scope="module")
def module_dial(module_connect):
    return lambda port: embedder_pb2_grpc.EmbedderServiceStub(module_connect(port))
