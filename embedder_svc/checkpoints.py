"""Weights of every supported source, loaded into a headless network that is ready to run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from embedder_svc import vmmrdb, weights
from embedder_svc.resnet import ResNet50
from embedder_svc.traits import PIXELS, PixelNorm, Traits
from svckit.cli import CommandError


@dataclass(frozen=True)
class Checkpoint:
    network: nn.Module
    """Photos normalised by `pixels` (N, 3, H, W) -> features (N, 2048); float32, in evaluation mode."""
    traits: Traits
    source: str

    @property
    def pixels(self) -> PixelNorm:
        return PIXELS[self.traits.pixels]


def load(name: str, **given: Any) -> Checkpoint:
    """Loads the weights that `weights.read` finds. `given` fields of Traits overrule what is known of them.

    Raises CommandError if the weights can't be had or don't fit a network.
    """
    found = weights.read(name)
    try:
        traits = found.traits.updated(given)
        network = _filled(found.state, traits)
    except ValueError as error:
        raise CommandError(f"{name}: {error}") from error
    return Checkpoint(network.eval().requires_grad_(requires_grad=False), traits, found.source)


def _filled(state: Mapping[str, Tensor], traits: Traits) -> nn.Module:
    """The network in whose layout the weights are, with them."""
    if "layer1.0.conv1.weight" in state:
        return _fill(ResNet50(stride_in=traits.strides, eps=traits.eps), _without(state, "fc."))
    if "4.0.0.0.0.weight" in state:
        if (traits.strides, traits.eps) != (Traits.strides, Traits.eps):
            raise ValueError("strides and eps can't be chosen for the VMMRdb network")
        return _fill(vmmrdb.VmmrdbResNet50(), _without(state, vmmrdb.CLASSIFIER))
    names = ", ".join(list(state)[:3]) or "nothing"
    raise ValueError(f"in the layout of neither torchvision's nor VMMRdb's ResNet-50, it begins with {names}")


def _without(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(prefix)}


def _fill(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
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
        expected[name].copy_(state[name])
    return network
