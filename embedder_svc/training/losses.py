"""Losses over embeddings (N, D) and the classes' directions (C, D), both compared by cosine."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize


class ClassDirections(nn.Module):
    """A learned direction a class. They live in the space of the embeddings, so they can start as the classes' means."""

    def __init__(self, classes: int, dimension: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.zeros(classes, dimension))

    @torch.no_grad()
    def imprint(self, embeddings: Tensor, labels: Tensor) -> None:
        """Starts every class at its mean embedding, seen from the mean of all classes; every class needs a photo.

        Qi, Brown and Lowe, "Low-Shot Learning with Imprinted Weights", CVPR 2018. Features after a ReLU share a large
        common part, which tells no class from another: hence the subtraction.
        """
        totals = torch.zeros_like(self.directions).index_add_(0, labels, normalize(embeddings))
        means = totals / torch.bincount(labels, minlength=len(totals))[:, None]
        self.directions.copy_(normalize(means - means.mean(0)))

    def cosines(self, embeddings: Tensor) -> Tensor:
        """(N, C)"""
        return normalize(embeddings) @ normalize(self.directions).T


class NormalizedSoftmax(ClassDirections):
    """Cross-entropy over scaled cosines. Zhai and Wu, "Classification is a Strong Baseline for Deep Metric Learning", 2018."""

    def __init__(self, classes: int, dimension: int, *, scale: float, smoothing: float) -> None:
        super().__init__(classes, dimension)
        self.scale = scale
        self.smoothing = smoothing

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.scale * self.cosines(embeddings), labels, label_smoothing=self.smoothing)


class ProxyAnchor(ClassDirections):
    """Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, equation 4."""

    def __init__(self, classes: int, dimension: int, *, scale: float, margin: float) -> None:
        super().__init__(classes, dimension)
        self.scale = scale
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosines = self.cosines(embeddings)
        own = nn.functional.one_hot(labels, cosines.shape[1]).bool()
        pull = _soft_maximum(-self.scale * (cosines - self.margin), own)
        push = _soft_maximum(self.scale * (cosines + self.margin), ~own)
        return pull.sum() / own.any(0).sum() + push.mean()


def _soft_maximum(values: Tensor, chosen: Tensor) -> Tensor:
    """log(1 + sum of exp(value)) over the chosen values of each column: (N, C) -> (C,)"""
    kept = values.masked_fill(~chosen, -torch.inf)
    return torch.cat([values.new_zeros(1, values.shape[1]), kept]).logsumexp(0)
