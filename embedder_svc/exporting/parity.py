"""The comparison of a model's embeddings with those of the network it was made from."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedder_svc.exporting.graph import Embedder
from embedder_svc.network.model import Model
from svckit.cli import CommandError

Cosines = NDArray[np.float64]


def cosines(embedder: Embedder, model: Model, batches: Iterable[NDArray[np.uint8]]) -> Cosines:
    """Return the cosine (N,) of each photo's two embeddings, torch's in float32 and the model's.

    Raise CommandError if an embedding is not finite.
    """
    return np.concatenate([between(_reference(embedder, batch), model.embed(batch)) for batch in batches])


def between(expected: NDArray[Any], actual: NDArray[Any]) -> Cosines:
    """Return the cosine (N,) of each row of one matrix (N, D) with that of the other. Raise CommandError if one is not finite."""
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise CommandError("an embedding is not finite: the weights don't fit the network, or not this precision")
    cosine: Cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosine


def described(found: Cosines, reference: str, images: str) -> dict[str, Any]:
    """Return the entry `parity` of model.json."""
    return {
        "reference": reference,
        "images": f"{len(found)} {images}",
        "cosine_mean": round(float(found.mean()), 7),
        "cosine_min": round(float(found.min()), 7),
    }


def drawn(size: int, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield images (1, size, size, 3) that stand in for photos: seeded noise in soft shapes."""
    generator = torch.Generator().manual_seed(230)
    for _ in range(count):
        coarse = torch.rand((1, 3, 8, 8), generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
        yield smooth.mul(255).byte().permute(0, 2, 3, 1).numpy()


def _reference(embedder: Embedder, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.inference_mode():
        embeddings: NDArray[np.float32] = embedder(torch.from_numpy(batch)).numpy()
    return embeddings
