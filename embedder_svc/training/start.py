"""A run put together from what its user names, and run."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from embedder_svc.exporting import checkpoints
from embedder_svc.exporting.checkpoints import Checkpoint
from embedder_svc.exporting.resnet import ResNet50
from embedder_svc.exporting.traits import PixelNorm, Traits
from embedder_svc.photos.resize import Resize
from embedder_svc.training import augment, norms
from embedder_svc.training.augment import normalised
from embedder_svc.training.batches import fetch
from embedder_svc.training.learner import Learner
from embedder_svc.training.loop import STATE, WEIGHTS, Run
from embedder_svc.training.photos import Collection, Decoded
from embedder_svc.training.recipe import Recipe
from svckit.cli import CommandError

_LOOKED_AT = 768
"""The number of photos from which batch norms that were in convolutions learn what comes to them."""


def start(
    recipe: Recipe,
    *,
    manifest: Path,
    folder: Path,
    weights: str,
    out: Path,
    cache: Path,
    device: str,
    card: Mapping[str, str],
) -> Path:
    """Train from `weights` on the photos of a manifest, or go on with the run in `out`; return the path of the weights.

    `card` holds traits of the result that only its owner knows: `training_data` and `licence`. Raise CommandError.
    """
    collection = Collection.read(manifest)
    begin = checkpoints.load(weights)
    if not isinstance(begin.network, ResNet50):
        raise CommandError(f"{weights}: training starts from a ResNet-50 in torchvision's layout")
    _check_sizes(recipe, begin.traits)
    identity = {"photos": collection.identity, "starting weights": _identity(begin)}
    if recipe.dimension not in (0, begin.network.dimension):
        begin.network.project(recipe.dimension, recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    resize, dimension = Resize(recipe.rule, recipe.cache_size), begin.network.dimension
    train = Decoded.read(collection.train, folder, cache, resize)
    if begin.folded and not (out / STATE).exists():
        norms.recall(begin.network, _some(train, recipe, begin.pixels))
    learner = Learner(
        begin.network, recipe, classes=len(collection.classes), dimension=dimension, device=device_of(device)
    )
    Run(
        learner,
        recipe,
        train=train,
        dev=Decoded.read(collection.dev, folder, cache, resize),
        norm=begin.pixels,
        metadata=_metadata(recipe, collection, begin, card),
        out=out,
        identity=identity,
    ).train()
    return out / WEIGHTS


def _some(train: Decoded, recipe: Recipe, norm: PixelNorm) -> Iterator[Tensor]:
    """Yield batches of inputs (N, 3, H, W) of photos drawn from those that are learned from, of the size that comes first."""
    drawn = np.random.default_rng([recipe.seed, 2]).permutation(len(train.photos))[:_LOOKED_AT]
    batches = (np.sort(drawn[start : start + recipe.batch]) for start in range(0, len(drawn), recipe.batch))
    for _, photos in fetch(train.pixels, batches, torch.device("cpu")):
        yield normalised(augment.resize(photos, recipe.training_stages.size(0)), norm)


def _check_sizes(recipe: Recipe, traits: Traits) -> None:
    """Raise CommandError if a size is too small for a model: the model's size is one of these, and export would refuse it."""
    try:
        traits.updated({"input_size": min(recipe.tested_sizes)})
    except ValueError as error:
        raise CommandError(f"--test-sizes: {error}") from error


def device_of(name: str) -> torch.device:
    """Return the device named `auto`, `cpu` or `cuda`, set up for training. Raise CommandError if there is none."""
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise CommandError("--device cuda: torch finds no CUDA GPU")
    torch.backends.cudnn.benchmark = True  # inputs have few shapes, each used for long
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def _identity(begin: Checkpoint) -> str:
    """Return a fingerprint that changes with any weight, and with any trait that they are run with."""
    digest = hashlib.sha256(json.dumps(asdict(begin.traits)).encode())
    for name, value in begin.network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().data)
    return digest.hexdigest()


def _metadata(recipe: Recipe, collection: Collection, begin: Checkpoint, card: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of the weights: what `checkpoints.load` needs, and what a model card says of them."""
    return {
        "source": f"vmmr-embedder train from {begin.source}",
        "strides": begin.traits.strides,
        "eps": str(begin.traits.eps),
        "pixels": begin.traits.pixels,
        "licence": card["licence"],
        "training_data": f"{begin.traits.training_data}; {card['training_data']}",
        "resize": recipe.resize,
        "classes": str(len(collection.classes)),
        "photos": str(len(collection.train)),
        "recipe": json.dumps(asdict(recipe)),
    }
