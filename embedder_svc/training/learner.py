"""One step of training: the network, its loss and its optimiser."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embedder_svc.training.ema import WeightAverage
from embedder_svc.training.loss import NormalizedSoftmax
from embedder_svc.training.recipe import Recipe
from embedder_svc.training.schedule import rate_factor

_BLOCKS = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
_MOMENTUM = 0.9


@dataclass(frozen=True)
class StepResult:
    loss: float
    correct: int
    """The number of photos whose nearest direction is that of their class."""


class Learner:
    """Trains a network that maps inputs (N, 3, H, W) to embeddings (N, dimension). It is moved to the device and changed in place."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        *,
        classes: int,
        dimension: int,
        device: torch.device,
    ) -> None:
        self.device = device
        self.dimension = dimension
        self._recipe = recipe
        self.network = network.requires_grad_().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
        self.average = WeightAverage(self.network, recipe.ema_steps)
        self.criterion = NormalizedSoftmax(classes, dimension, scale=recipe.scale, smoothing=recipe.smoothing).to(
            device
        )
        _train_above(self.network, recipe.frozen)
        self._trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.SGD(self._groups(), momentum=_MOMENTUM, nesterov=True)

    def _groups(self) -> list[dict[str, Any]]:
        rate, decay = self._recipe.rate, self._recipe.weight_decay
        return [
            {"params": [p for p in self._trained if p.ndim > 1], "peak": rate, "lr": rate, "weight_decay": decay},
            {"params": [p for p in self._trained if p.ndim <= 1], "peak": rate, "lr": rate},
            {"params": [*self.criterion.parameters()], "peak": self._recipe.class_rate, "lr": self._recipe.class_rate},
        ]

    def learn(self, inputs: Tensor, labels: Tensor, *, progress: float, step: int) -> StepResult:
        """Take one step of gradient descent; `step` counts from 1."""
        self._set_rates(progress)
        embeddings = self.embed(self.network, inputs)
        loss = self.criterion(embeddings, labels)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained, self._recipe.clip)
        self._optimizer.step()
        self.average.update(self.network, step)
        with torch.no_grad():
            correct = self.criterion.correct(embeddings, labels)
        return StepResult(loss.item(), correct)

    def embed(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Return the embeddings (N, dimension) float32 of inputs (N, 3, H, W)."""
        half = self._recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            embeddings: Tensor = network(inputs.contiguous(memory_format=torch.channels_last))
        return embeddings.float()

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "average": self.average.network,
            "criterion": self.criterion,
            "optimizer": self._optimizer,
        }

    def _set_rates(self, progress: float) -> None:
        factor = rate_factor(progress, self._recipe.warm_up)
        for group in self._optimizer.param_groups:
            group["lr"] = factor * group["peak"]


def _train_above(network: nn.Module, frozen: int) -> None:
    """Put the network into training mode, but freeze the first blocks: they keep their weights and running statistics, and cost no
    backward pass.
    """
    network.train()
    for name in (name for block in _BLOCKS[:frozen] for name in block):
        network.get_submodule(name).eval().requires_grad_(requires_grad=False)
