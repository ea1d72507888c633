"""Train networks on a GPU in a given time: `python -m bench.embedder.train_gpu MANIFEST ... --photos DIR --weights WEIGHTS --out DIR`.

bench/train_gpu.sh sets up for it. Each manifest, as `vmmr-search split` makes it, is a network in a folder of its own, OUT/NAME of NAME.csv,
with the files that `vmmr-embedder train` writes. All have one recipe. How fast this GPU trains at each size is measured first, and
the number of epochs is what fits in the time. A run that was cut off goes on by its manifest alone and --epochs, with the number it printed.

Rates are those of a batch of 32 times the ratio of the batches, and the weights are averaged over as many photos as there. That, and
the sizes, are choices that follow the usual rules: they have not been measured on a GPU.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.lib import machine
from bench.lib.paths import RESULTS
from embedder_svc.exporting.resnet import ResNet50
from embedder_svc.exporting.traits import PIXELS
from embedder_svc.training.augment import Augmentation, normalised
from embedder_svc.training.learner import Learner
from embedder_svc.training.photos import Collection
from embedder_svc.training.recipe import Recipe
from embedder_svc.training.start import device_of, start
from svckit import cli
from svckit.cli import CommandError

FOR_STEPS = 0.75
"""The share of the time that steps may take; the rest is for decoding, choosing kernels, looks at the dev photos and files."""
LOOKS = 3
"""How often each network is asked for the dev photos, at even distances: the weights of a run that is cut off are there."""
CLASSES = 196
WARM_UP, TIMED = 4, 8  # steps


def main() -> None:
    cli.run(lambda: run(arguments()), "bench.embedder.train_gpu")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="where the manifests' paths start")
    parser.add_argument("--weights", required=True, help="what to start from, as of `vmmr-embedder train`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all networks together")
    parser.add_argument("--epochs", type=cli.count, help="of each network, in place of what fits in the minutes")
    parser.add_argument("--batch", type=cli.count, default=128, help="photos a step")
    parser.add_argument("--stages", default="0:256,0.5:320,0.85:384", help="training sizes")
    parser.add_argument("--test-sizes", default="320,384,448", help="sizes tried on the dev photos")
    parser.add_argument("--cache-size", type=cli.count, default=448, help="pixels a side of the decoded photos")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to rehearse, in the small")
    parser.add_argument("--data", default="unknown", help="the photos' name, origin and terms, for the model's card")
    parser.add_argument("--licence", default="unknown", help="the licence of the trained weights")
    parser.add_argument("--json", type=Path, default=RESULTS / "train_gpu.json", help="where the figures go")
    return parser.parse_args(words)


def run(args: argparse.Namespace) -> None:
    device = device_of(args.device)
    end = time.monotonic() + 60 * args.minutes
    recipe = recipe_of(args)
    counts = [len(Collection.read(manifest).train) for manifest in args.manifests]
    rates = {} if args.epochs else measured(recipe, device)
    if rates and not fitting(end - time.monotonic(), sum(counts), recipe, rates):
        needed = sum(counts) * seconds_a_photo(recipe, rates) / FOR_STEPS / 60
        raise CommandError(f"--minutes {args.minutes:g} is too short: an epoch of all networks takes {needed:.2f}")
    networks = {}
    for number, manifest in enumerate(args.manifests):
        share = counts[number] / sum(counts[number:])
        epochs = args.epochs or max(1, fitting(share * (end - time.monotonic()), counts[number], recipe, rates))
        networks[manifest.stem] = trained(args, manifest, of_epochs(recipe, epochs))
        write(args, rates, networks)  # after each, in case there is no time for the next


def recipe_of(args: argparse.Namespace) -> Recipe:
    """Return the recipe, for one epoch: that of batches of 32, made one for this batch."""
    times = args.batch / 32
    return Recipe(
        epochs=1,
        batch=args.batch,
        rate=0.02 * times,
        class_rate=0.2 * times,
        warm_up=0.05,
        ema_steps=round(200 / times),
        stages=args.stages,
        test_sizes=args.test_sizes,
        cache_size=args.cache_size,
        frozen=1,
        crop_area=0.25,
        colour=0.4,
        erase=0.35,
    )


def of_epochs(recipe: Recipe, epochs: int) -> Recipe:
    return replace(recipe, epochs=epochs, evaluate_every=math.ceil(epochs / LOOKS))


def measured(recipe: Recipe, device: torch.device) -> dict[int, float]:
    """Return the photos/s of training at each size."""
    network = ResNet50()
    learner = Learner(network, recipe, classes=CLASSES, dimension=network.dimension, device=device)
    rates = {size: rate(learner, recipe, size) for size in recipe.training_stages.sizes}
    for size, photos in rates.items():
        print(f"{size} pixels: {photos:.0f} photos/s", flush=True)
    return rates


def rate(learner: Learner, recipe: Recipe, size: int) -> float:
    """Return the photos/s of steps on photos that are on the device, views included, after the steps in which kernels are chosen."""
    shape = (recipe.batch, recipe.cache_size, recipe.cache_size, 3)
    photos = torch.randint(0, 256, shape, dtype=torch.uint8, device=learner.device)
    labels = torch.arange(recipe.batch, device=learner.device) % CLASSES
    augmentation = Augmentation(recipe.crop_area, recipe.colour, recipe.erase)
    began = 0.0
    for number in range(WARM_UP + TIMED):
        if number == WARM_UP:
            began = time.perf_counter()
        views = augmentation.view(photos, size, np.random.default_rng(number))
        learner.learn(normalised(views, PIXELS["caffe"]), labels, progress=0.0, step=number + 1)  # waits for the loss
    return TIMED * recipe.batch / (time.perf_counter() - began)


def fitting(seconds: float, photos: int, recipe: Recipe, rates: Mapping[int, float]) -> int:
    """Return the number of epochs over so many photos that fit in the seconds."""
    return int(FOR_STEPS * seconds / (photos * seconds_a_photo(recipe, rates)))


def seconds_a_photo(recipe: Recipe, rates: Mapping[int, float]) -> float:
    stages = recipe.training_stages
    shares = [after - before for before, after in pairwise((*stages.starts, 1.0))]
    return sum(share / rates[size] for share, size in zip(shares, stages.sizes, strict=True))


def trained(args: argparse.Namespace, manifest: Path, recipe: Recipe) -> dict[str, Any]:
    print(f"{manifest.stem}: {recipe.epochs} epochs", flush=True)
    began = time.monotonic()
    weights = start(
        recipe,
        manifest=manifest,
        folder=args.photos,
        weights=args.weights,
        out=args.out / manifest.stem,
        cache=args.out / "cache",
        device=args.device,
        card={"training_data": args.data, "licence": args.licence},
    )
    print(f"{weights}: {time.monotonic() - began:.0f} s", flush=True)
    return {"seconds": round(time.monotonic() - began, 1), "recipe": asdict(recipe)}


def write(args: argparse.Namespace, rates: Mapping[int, float], networks: Mapping[str, Any]) -> None:
    gpu = torch.cuda.get_device_name() if args.device == "cuda" else "none"
    about = {**machine.describe(("numpy", "pillow", "torch")), "gpu": gpu}
    figures = {"machine": about, "photos_per_s": rates, "networks": networks}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
