"""A running average of a network's weights, which generalises better than the last step's."""

import copy

import torch
from torch import nn

_EVERY = 4


class WeightAverage:
    """An exponential moving average of the weights, over about the last `steps` steps; with 0 or 1, the last weights themselves.

    `network` is the averaged copy, in evaluation mode. Running statistics are averaged with the weights.
    """

    def __init__(self, network: nn.Module, steps: int) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._steps = steps

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Add the weights after `step` steps (counted from 1) to the average.

        If it reaches back further than four steps, only every fourth step is added: each costs memory traffic.
        """
        reach = max(1, min(self._steps, step))  # early on, the starting weights must not linger
        every = 1 if reach <= _EVERY else _EVERY
        if step % every:
            return
        weight = every / reach
        for mine, theirs in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)
