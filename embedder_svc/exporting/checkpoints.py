"""Weights from every supported source, loaded into a headless network that is ready to run."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from embedder_svc.exporting import vmmrdb, weights
from embedder_svc.exporting.resnet import PROJECTION, ResNet50
from embedder_svc.exporting.traits import PIXELS, PixelNorm, Traits
from embedder_svc.exporting.vmmrdb import VmmrdbResNet50
from svckit.cli import CommandError


@dataclass(frozen=True)
class Checkpoint:
    network: nn.Module
    """Maps photos (N, 3, H, W), normalised by `pixels`, to embeddings (N, D); float32, in evaluation mode."""
    traits: Traits
    source: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    folded: bool = False
    """Whether its batch norms only add a bias, and have to learn what comes to them before they are trained."""

    @property
    def pixels(self) -> PixelNorm:
        return PIXELS[self.traits.pixels]

    def unprojected(self) -> Self:
        """Return the checkpoint without its learned projection, if it has one: its embeddings are the pooled features."""
        if not hasattr(self.network, "projection"):
            return self
        network = copy.deepcopy(self.network)
        network.projection = nn.Identity()
        return replace(self, network=network)


def load(name: str, **given: Any) -> Checkpoint:
    """Load the weights that `weights.read` finds. Fields of Traits in `given` overrule what is known of the weights.

    Raise CommandError if the weights can't be had or don't fit a network.
    """
    found = weights.read(name)
    try:
        traits = found.traits.updated(given)
        network = _network_with(found.state, traits)
    except ValueError as error:
        raise CommandError(f"{name}: {error}") from error
    network.eval().requires_grad_(requires_grad=False)
    return Checkpoint(network, traits, found.source, found.metrics, found.folded)


def _network_with(state: Mapping[str, Tensor], traits: Traits) -> nn.Module:
    """Return the network whose layout the weights have, with the weights. Raise ValueError if they fit none."""
    with torch.device("meta"):  # random weights take a second to make, and would be thrown away
        network, classifier = _empty_network(state, traits)
    own = {name: value for name, value in state.items() if not name.startswith(classifier)}
    _check(own, network)
    for name, value in network.to_empty(device="cpu").state_dict().items():
        value.copy_(own.get(name, torch.tensor(0)))
    return network


def _empty_network(state: Mapping[str, Tensor], traits: Traits) -> tuple[nn.Module, str]:
    """Return the network of that layout, and the prefix of its classifier's parameters."""
    if "layer1.0.conv1.weight" in state:
        projection = state.get(PROJECTION)
        dimension = None if projection is None else len(projection)
        return ResNet50(stride_in=traits.strides, eps=traits.eps, dimension=dimension), "fc."
    if "4.0.0.0.0.weight" in state:
        if (traits.strides, traits.eps) != (Traits.strides, Traits.eps):
            raise ValueError("strides and eps can't be chosen for the VMMRdb network")
        return VmmrdbResNet50(), vmmrdb.CLASSIFIER
    names = ", ".join(list(state)[:3]) or "nothing"
    raise ValueError(f"in the layout of neither torchvision's nor VMMRdb's ResNet-50, it begins with {names}")


def _check(state: Mapping[str, Tensor], network: nn.Module) -> None:
    """Raise ValueError unless the parameters are those of the network, in their shapes, and no others."""
    expected = network.state_dict()
    # Converted checkpoints lack the batch norms' counters, which only training reads.
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    if missing := sorted(needed - state.keys()):
        raise ValueError(f"lacks {len(missing)} parameters of a ResNet-50, the first is {missing[0]}")
    if unknown := sorted(state.keys() - expected.keys()):
        raise ValueError(f"has {len(unknown)} parameters that a ResNet-50 has not, the first is {unknown[0]}")
    for name in sorted(needed):
        if state[name].shape != expected[name].shape:
            raise ValueError(f"{name} is {tuple(state[name].shape)}, must be {tuple(expected[name].shape)}")
