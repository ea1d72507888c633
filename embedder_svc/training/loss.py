"""The loss over embeddings (N, D), which compares them by cosine with a learned direction for each class (C, D)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize


class NormalizedSoftmax(nn.Module):
    """Cross-entropy over scaled cosines. Zhai and Wu, "Classification is a Strong Baseline for Deep Metric Learning", 2018."""

    def __init__(self, classes: int, dimension: int, *, scale: float, smoothing: float) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.zeros(classes, dimension))
        self.scale = scale
        self.smoothing = smoothing

    @torch.no_grad()
    def imprint(self, embeddings: Tensor, labels: Tensor) -> None:
        """Start every class at its mean embedding, less the mean of all classes; every class needs a photo.

        Qi, Brown and Lowe, "Low-Shot Learning with Imprinted Weights", CVPR 2018. Features after a ReLU share a large
        common part, which tells no class from another: hence the subtraction.
        """
        totals = torch.zeros_like(self.directions).index_add_(0, labels, normalize(embeddings))
        means = totals / torch.bincount(labels, minlength=len(totals))[:, None]
        self.directions.copy_(normalize(means - means.mean(0)))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.scale * self._cosines(embeddings), labels, label_smoothing=self.smoothing)

    def correct(self, embeddings: Tensor, labels: Tensor) -> int:
        """Return the number of photos whose nearest direction is that of their class."""
        return int((self._cosines(embeddings).argmax(1) == labels).sum())

    def _cosines(self, embeddings: Tensor) -> Tensor:
        """Return the cosines (N, C) of embeddings and classes."""
        return normalize(embeddings) @ normalize(self.directions).T
