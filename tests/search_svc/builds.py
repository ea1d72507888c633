"""Builds index versions from what tests have at hand."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.building import build
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import MEMORY_BYTES, IndexSpec, Resources
from search_svc.index.version import IndexVersion


def build_version(
    index_dir: Path,
    *,
    embeddings: Any,
    spec: IndexSpec,
    rows: NDArray[np.int64] | None = None,
    fingerprint: str | None = None,
    processes: int = 1,
    memory_bytes: int = MEMORY_BYTES,
    ray: str | None = None,
    **more: Any,
) -> IndexVersion:
    """Build the next version of `index_dir`; `more` are fields of BuildSource, and options of `build.build_version`."""
    options = {name: more.pop(name) for name in ("held", "inherited", "drop_changes") if name in more}
    rows = np.arange(embeddings.shape[0]) if rows is None else rows
    gallery = BuildSource(embeddings=embeddings, rows=rows, embeddings_fingerprint=fingerprint, **more)
    return build.build_version(index_dir, gallery, spec, resources=Resources(processes, memory_bytes, ray), **options)
