import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

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
