"""The folder that `vmmr-embedder embed` writes: a matrix of embeddings, and a line of `items.csv` for each of its rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset import photo_list
from search_svc.dataset.cuts import Cuts
from search_svc.dataset.photo_list import Photo
from svckit.artifact import NPY_ERRORS, ArtifactError, read_manifest

_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


@dataclass(frozen=True)
class Embeddings:
    matrix: NDArray[Any]
    """(photos, dimension) float16 or float32, memory-mapped, read-only."""
    photos: tuple[Photo, ...]
    model: str
    """The fingerprint of the model that made the embeddings."""
    model_name: str
    normalized: bool
    """Whether the embeddings have unit length."""
    fingerprint: str
    """The sha256 of the manifest, which holds the sha256 of every other file."""
    cuts: Cuts | None = None
    """What of each photo was embedded; None if that is not known."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a folder of embeddings.

        Raises ArtifactError, naming the file and the reason, if a file is damaged or does not fit the others.
        """
        if not (path / "manifest.json").exists():
            raise ArtifactError(path / "manifest.json", "missing: no embeddings here; `vmmr-embedder embed` makes them")
        fields = read_manifest(path)
        if fields.get("kind") != "embeddings":
            raise ArtifactError(path / "manifest.json", f"kind must be 'embeddings', got {fields.get('kind')!r}")
        try:
            shape = (int(fields["count"]), int(fields["dimension"]))
            model, model_name, normalized = str(fields["model"]), str(fields["model_name"]), bool(fields["normalized"])
        except (KeyError, TypeError, ValueError) as error:
            reason = f"a field is missing or of the wrong type: {error}"
            raise ArtifactError(path / "manifest.json", reason) from error
        photos = photo_list.read(path / "items.csv")
        if len(photos) != shape[0]:
            raise ArtifactError(path / "items.csv", f"lists {len(photos)} photos, its manifest says {shape[0]}")
        matrix, cuts = _matrix(path / "embeddings.npy", shape), Cuts.read(path / "items.csv")
        return cls(matrix, tuple(photos), model, model_name, normalized, fields["sha256"], cuts)


def _matrix(file: Path, shape: tuple[int, int]) -> NDArray[Any]:
    try:
        matrix: NDArray[Any] = np.load(file, mmap_mode="r")
    except NPY_ERRORS as error:
        raise ArtifactError(file, str(error)) from error
    if matrix.shape != shape or matrix.dtype not in _DTYPES:
        raise ArtifactError(file, f"must be float16 or float32 {shape}, is {matrix.dtype} {matrix.shape}")
    return matrix
