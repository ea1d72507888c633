import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray
from vmmr.search.v1 import search_pb2_grpc

from search_svc.build import IndexSpec, build_version
from search_svc.labels import parse
from search_svc.version import IndexVersion

MODEL = "c0ffee" + 58 * "0"


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
