"""Losses over embeddings (N, D), compared by cosine with the classes' directions (C, D) or with each other.

Each is a few lines, written after its paper, so that no library of losses is needed.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize


class Criterion(nn.Module, ABC):
    """A loss: `forward(embeddings (N, D), labels (N,))` returns it, a scalar."""

    @abstractmethod
    def imprint(self, embeddings: Tensor, labels: Tensor) -> None:
        """Initialise what is learned of the classes from photos of each of them."""

    @abstractmethod
    def correct(self, embeddings: Tensor, labels: Tensor) -> int:
        """Return the number of photos whose nearest, among what the loss compares them with, is of their class."""


class ClassDirections(Criterion):
    """A loss with a learned direction for each class, in the space of the embeddings, which can start as the class' mean."""

    def __init__(self, classes: int, dimension: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.zeros(classes, dimension))

    @torch.no_grad()
    def imprint(self, embeddings: Tensor, labels: Tensor) -> None:
        """Start every class at its mean embedding, less the mean of all classes; every class needs a photo.

        Qi, Brown and Lowe, "Low-Shot Learning with Imprinted Weights", CVPR 2018. Features after a ReLU share a large
        common part, which tells no class from another: hence the subtraction.
        """
        totals = torch.zeros_like(self.directions).index_add_(0, labels, normalize(embeddings))
        means = totals / torch.bincount(labels, minlength=len(totals))[:, None]
        self.directions.copy_(normalize(means - means.mean(0)))

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Return the cosines (N, C) of embeddings and classes."""
        return normalize(embeddings) @ normalize(self.directions).T

    def correct(self, embeddings: Tensor, labels: Tensor) -> int:
        return int((self.cosines(embeddings).argmax(1) == labels).sum())


class NormalizedSoftmax(ClassDirections):
    """Cross-entropy over scaled cosines. Zhai and Wu, "Classification is a Strong Baseline for Deep Metric Learning", 2018."""

    def __init__(self, classes: int, dimension: int, *, scale: float, smoothing: float) -> None:
        super().__init__(classes, dimension)
        self.scale = scale
        self.smoothing = smoothing

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.scale * self.cosines(embeddings), labels, label_smoothing=self.smoothing)


class HierarchicalSoftmax(NormalizedSoftmax):
    """The mean of several cross-entropies: of the class, and of each node above it, whose probability is the sum of its classes'.

    A wrong class of the right make costs less than one of another make. Only the class is smoothed.
    """

    levels: Tensor

    def __init__(self, levels: Tensor, dimension: int, *, scale: float, smoothing: float) -> None:
        """`levels` (L, C) number the node that each class is under, level by level: its make, say, and its model."""
        super().__init__(levels.shape[1], dimension, scale=scale, smoothing=smoothing)
        self.register_buffer("levels", levels, persistent=False)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        scaled = self.scale * self.cosines(embeddings)
        total = cross_entropy(scaled, labels, label_smoothing=self.smoothing)
        for nodes in self.levels:
            others = nodes[labels][:, None] != nodes
            total = total + (scaled.logsumexp(1) - scaled.masked_fill(others, -torch.inf).logsumexp(1)).mean()
        return total / (1 + len(self.levels))


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


class MultiSimilarity(Criterion):
    """Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019.

    Photos of a batch are compared with each other, so one that is alone of its class there only pushes others away.
    `scale` is the paper's beta, `margin` its epsilon; alpha and lambda are as in its authors' code.
    """

    alpha = 2.0
    threshold = 0.5

    def __init__(self, *, scale: float, margin: float) -> None:
        super().__init__()
        self.scale = scale
        self.margin = margin

    def imprint(self, embeddings: Tensor, labels: Tensor) -> None:
        """Do nothing: this loss learns nothing of a class."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosines, own, other = _pairs(embeddings, labels)
        pulling, pushing = self._informative(cosines.detach(), own, other)
        pull = _soft_maximum(-self.alpha * (cosines - self.threshold), pulling) / self.alpha
        push = _soft_maximum(self.scale * (cosines - self.threshold), pushing) / self.scale
        return (pull + push).mean()

    def _informative(self, cosines: Tensor, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return which pairs of each photo, in columns, are not in order by a margin: equations 6 and 7."""
        farthest_own = cosines.masked_fill(~own, torch.inf).amin(0)
        nearest_other = cosines.masked_fill(~other, -torch.inf).amax(0)
        return own & (cosines - self.margin < nearest_other), other & (cosines + self.margin > farthest_own)

    def correct(self, embeddings: Tensor, labels: Tensor) -> int:
        cosines, own, other = _pairs(embeddings, labels)
        nearest = cosines.masked_fill(~(own | other), -torch.inf).argmax(0)
        return int((labels[nearest] == labels).sum())


def _pairs(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cosines of the photos, and which pairs are two photos of one class, and which of two classes: (N, N) each."""
    units = normalize(embeddings)
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return units @ units.T, same & ~itself, ~same


def _soft_maximum(values: Tensor, chosen: Tensor) -> Tensor:
    """Return log(1 + sum of exp(value)) over the chosen values of each column: (C,) of (N, C)."""
    kept = values.masked_fill(~chosen, -torch.inf)
    return torch.cat([values.new_zeros(1, values.shape[1]), kept]).logsumexp(0)
