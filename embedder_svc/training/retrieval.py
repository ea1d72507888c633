"""The share of photos that find their own class in a gallery: what embeddings are for, and so what chooses a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NEAREST = 5
_CHUNK = 256
"""The number of queries whose similarities to the whole gallery are in memory at a time."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracies, in percent of the queries."""

    top1: float
    """Queries whose nearest photo is of their class."""
    top5: float
    """Queries of whose 5 nearest photos one is of their class."""
    make: float
    """Queries whose nearest photo is of their make."""


@dataclass(frozen=True)
class Embedded:
    embeddings: Tensor
    """(N, D), of unit length."""
    labels: Tensor
    makes: Tensor


def accuracy(queries: Embedded, gallery: Embedded) -> Accuracy:
    """Return the accuracies of the queries in the gallery, by cosine."""
    count = min(_NEAREST, len(gallery.embeddings))
    chunks = torch.split(queries.embeddings, _CHUNK)
    nearest = torch.cat([(chunk @ gallery.embeddings.T).topk(count).indices for chunk in chunks])
    same_class = gallery.labels[nearest] == queries.labels[:, None]
    same_make = gallery.makes[nearest[:, 0]] == queries.makes
    return Accuracy(_percent(same_class[:, 0]), _percent(same_class.any(1)), _percent(same_make))


def best_size(sizes: tuple[int, ...], measure: Callable[[int], Accuracy]) -> tuple[int, Accuracy]:
    """Return the input size with the best top-1; of equals the smallest, which is the cheapest."""
    measured = [(size, measure(size)) for size in sorted(sizes)]
    return max(measured, key=lambda pair: pair[1].top1)


def _percent(hits: Tensor) -> float:
    return round(100 * hits.float().mean().item(), 2)
