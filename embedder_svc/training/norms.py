"""Batch norms that know what comes to them: those of weights that were read back from a graph do not."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.inference_mode()
def recall(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give each batch norm the mean and the variance of what comes to it, and the weights with which the network computes what it did.

    Training normalises by what comes to a norm. A norm that remembers something else would make another network of it at the first step.
    `batches` are inputs (N, 3, H, W); the network is in evaluation mode.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    seen = {norm: _Seen(norm.num_features) for norm in norms}
    hooks = [norm.register_forward_pre_hook(lambda norm, given: seen[norm].add(*given)) for norm in norms]
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        _remember(norm, *seen[norm].moments())


class _Seen:
    """Sums of what came to a norm, channel by channel."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, given: Tensor) -> None:
        values = given.double().movedim(1, 0).flatten(1)
        self._count += values.shape[1]
        self._sum += values.sum(1).cpu()
        self._squares += values.square().sum(1).cpu()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance."""
        mean = self._sum / self._count
        return mean, (self._squares / self._count - mean.square()).clamp_min(0)


def _remember(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    norm.bias.copy_(norm.bias + scale * (mean - norm.running_mean))
    norm.weight.copy_(scale * (variance + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
