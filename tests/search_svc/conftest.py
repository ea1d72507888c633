import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from vmmr.search.v1 import search_pb2_grpc

from search_svc.building.spec import IndexSpec
from search_svc.engine.local import LocalEngine
from search_svc.fitting.fit import HeldOutPhotos
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import parse
from tests.search_svc.builds import build_version

MODEL = "c0ffee" + 58 * "0"


@pytest.fixture(scope="session")
def build_index(tmp_path_factory) -> Callable[..., IndexVersion]:
    """Builds an index version over vectors, in a directory of its own unless one is given."""

    def build(
        vectors: NDArray[Any],
        *,
        names: list[str] | None = None,
        spec: IndexSpec | None = None,
        directory: Path | None = None,
    ) -> IndexVersion:
        names = names or [f"make_model {row % 7}_{2000 + row % 3}" for row in range(len(vectors))]
        return build_version(
            directory or tmp_path_factory.mktemp("index"),
            embeddings=vectors,
            item_ids=[f"photo {row}.jpg" for row in range(len(vectors))],
            labels=[parse(name) for name in names],
            uris=[f"photos/{row}.jpg" for row in range(len(vectors))],
            model=MODEL,
            model_name="test",
            spec=spec or IndexSpec(),
        )

    return build


@pytest.fixture(scope="module")
def open_shards(build_index, tmp_path_factory):
    """Builds and opens an index over vectors; the directory is gone by then, but for what is mapped."""
    # What takes longest in writing a hundred small indexes is waiting for the disk, which these tests do not ask about.
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", lambda descriptor: None)

    def build_and_open(gallery: NDArray[Any], **spec: Any) -> LocalEngine:
        directory = tmp_path_factory.mktemp("index")
        engine = LocalEngine.open(build_index(gallery, directory=directory, spec=IndexSpec(**spec)))
        shutil.rmtree(directory)
        return engine

    yield build_and_open
    patch.undo()


@dataclass(frozen=True)
class Calibrated:
    """A calibrated index of 24 classes, two years of each of 12 models, and photos to ask it for."""

    version: IndexVersion
    photos: NDArray[np.float32]
    """(24 * 5, 32): five of each class, one class after the other; none is in the gallery, or was fitted on."""
    names: list[str]
    """Of the class of each."""
    strangers: NDArray[np.float32]
    """(60, 32): of cars that the gallery lacks."""


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory) -> Calibrated:
    rng = np.random.default_rng(0)
    classes = [f"make{make}_model{model}_{year}" for make in range(4) for model in range(3) for year in (2009, 2010)]
    models = _unit(rng.standard_normal((12, 32)))
    centres = np.repeat(models, 2, axis=0) + 0.05 * rng.standard_normal((24, 32))

    def photos(centres: NDArray[Any], each: int) -> NDArray[np.float32]:
        return _unit(np.repeat(centres, each, axis=0) + 0.1 * rng.standard_normal((len(centres) * each, 32)))

    gallery, held = photos(centres, 15), photos(centres, 10)
    version = build_version(
        tmp_path_factory.mktemp("calibrated"),
        embeddings=gallery,
        item_ids=[f"photo {row}.jpg" for row in range(len(gallery))],
        labels=[parse(name) for name in classes for _ in range(15)],
        uris=[f"photos/{row}.jpg" for row in range(len(gallery))],
        model=MODEL,
        model_name="test",
        spec=IndexSpec(k=8),
        held=HeldOutPhotos(held, np.arange(len(held)), [parse(name) for name in classes for _ in range(10)]),
    )
    names = [name for name in classes for _ in range(5)]
    return Calibrated(version, photos(centres, 5), names, photos(_unit(rng.standard_normal((12, 32))), 5))


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


SERVE = ("-m", "search_svc", "serve", "--port", "0", "--metrics-port", "0")


@pytest.fixture
def spawn(run):
    """Starts `vmmr-search serve` with the given flags, as a process, on free ports."""
    return partial(run, *SERVE)


@pytest.fixture(scope="module")
def module_spawn(module_run):
    return partial(module_run, *SERVE)


@pytest.fixture
def dial(connect):
    """A stub for the server at a port."""
    return lambda port: search_pb2_grpc.SearchServiceStub(connect(port))


@pytest.fixture(scope="module")
def module_dial(module_connect):
    return lambda port: search_pb2_grpc.SearchServiceStub(module_connect(port))
