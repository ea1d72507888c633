"""`vmmr-search build`: builds an index version from embeddings, from the command line."""

import argparse
import dataclasses
import sys
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from search_svc.building import resource_flags, spec_file
from search_svc.building.build import DEFAULT_K, build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec, ShardBy
from search_svc.dataset import exclude
from search_svc.dataset.embeddings import Embeddings
from search_svc.dataset.photo_list import split_names
from search_svc.fitting import verdicts
from search_svc.fitting.held_out import LEAST_LABELS, LEAST_PHOTOS, HeldOutPhotos
from search_svc.index.version import IndexVersion, Metric
from search_svc.voting.calibration import Calibration
from svckit import ray_cluster
from svckit.artifact import ArtifactError
from svckit.cli import CommandError, tell_next


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "build",
        help="build an index version from embeddings",
        description="Builds the next version of an index from embeddings, and makes it the current one. If it is stopped, the "
        "same command goes on from where it was.",
    )
    parser.add_argument(
        "embeddings", metavar="EMBEDDINGS", type=Path, help="the folder that `vmmr-embedder embed` wrote"
    )
    parser.add_argument("--out", metavar="INDEX", type=Path, required=True, help="the index data directory")
    parser.add_argument(
        "--split", default="train", help="splits that make the gallery, for example train,dev (default: train)"
    )
    exclude.add_flag(parser)
    parser.add_argument(
        "--spec", metavar="JSON", type=Path, help="the spec that `vmmr-search select` wrote, in place of flags"
    )
    _add_spec_flags(parser)
    resource_flags.add(parser, every_core=True)
    parser.add_argument(
        "--ray",
        metavar="HOST:PORT",
        help="train and fill shards on the Ray cluster whose head is there, and of which this machine is a node: with --workers, so many "
        "shards at a time, each on a core. The index must be on storage that all nodes share",
    )
    parser.add_argument(
        "--drop-changes",
        action="store_true",
        help="discard what was added and deleted while the index served, if it cannot be applied to the new version",
    )
    parser.set_defaults(run=_run)


def _add_spec_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of an IndexSpec, None by default, so that it is known which were given."""
    spec = IndexSpec()
    parser.add_argument("--factory", help=f"faiss factory string (default: {spec.factory})")
    parser.add_argument("--metric", choices=get_args(Metric), help=f"default: {spec.metric}")
    parser.add_argument("--nprobe", type=int, help="inverted lists a search visits, for IVF (default: faiss', 1)")
    parser.add_argument("--ef-search", type=int, help="candidates a search keeps, for HNSW (default: faiss', 16)")
    parser.add_argument(
        "--rerank",
        type=int,
        help="candidates a search finds for each neighbour, to compare them again with the embeddings (default: none)",
    )
    parser.add_argument("--shards", type=int, help=f"parts, searched in parallel (default: {spec.shards})")
    parser.add_argument(
        "--shard-by",
        choices=get_args(ShardBy),
        help=f"an even part of each label, or whole labels (default: {spec.shard_by})",
    )
    parser.add_argument(
        "--train-sample", type=int, help="embeddings to train on (default: 39 a list, and 65536 at least)"
    )
    parser.add_argument("--k", type=int, help=f"neighbours that vote (default: fitted on dev photos, or {DEFAULT_K})")
    parser.add_argument(
        "--temperature",
        type=float,
        help="temperature of the vote (default: fitted on dev photos, or from the embeddings' length)",
    )
    parser.add_argument(
        "--seed", type=int, help=f"seed of the training sample, and of what fitting draws (default: {spec.seed})"
    )


def _spec(args: argparse.Namespace) -> IndexSpec:
    """Return the spec that the flags give; with --spec, that file's, and the flags for which the file has no field."""
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(IndexSpec)}
    given = {name: value for name, value in given.items() if value is not None}
    if args.spec is None:
        return IndexSpec(**given)
    if both := [name for name in spec_file.FIELDS if name in given]:
        raise CommandError(f"--{both[0].replace('_', '-')} is what --spec is for: give one of the two")
    return IndexSpec(**spec_file.read(args.spec), **given)


def _run(args: argparse.Namespace) -> None:
    spec, resources = _spec(args), resource_flags.read(args)
    if args.ray:
        ray_cluster.check(args.ray)
        resources = dataclasses.replace(resources, processes=args.workers or spec.shards, ray=args.ray)
    splits = split_names(args.split)
    embeddings = Embeddings.open(args.embeddings)
    left_out = exclude.excluded(args.exclude, {photo.path for photo in embeddings.photos})
    rows = np.array(
        [row for row, photo in enumerate(embeddings.photos) if photo.split in splits and photo.path not in left_out],
        np.int64,
    )
    if not len(rows):
        raise CommandError(f"{args.embeddings}: holds no photo of the split {args.split}")
    if spec.metric == "ip" and not embeddings.normalized:
        print("warning: the embeddings are not of unit length; with --metric ip the longest win", file=sys.stderr)
    _warn_of_other_model(args.out, embeddings)
    held = _held(embeddings, rows, left_out)
    version = build_version(
        args.out.resolve() if args.ray else args.out,  # nodes have other working directories
        BuildSource.of(embeddings, rows),
        spec,
        held=held,
        drop_changes=args.drop_changes,
        resources=resources,
    )
    print(_summary(version))
    print(describe_calibration(version.calibration, held))
    if warning := verdicts.warning(version.calibration):
        print(warning, file=sys.stderr)
    if any(photo.split == "test" for photo in embeddings.photos):
        tell_next("vmmr-search", "evaluate", args.embeddings, "--index", args.out)
    tell_next("vmmr-search", "serve", "--index", args.out)


def _warn_of_other_model(index: Path, embeddings: Embeddings) -> None:
    """Warn if the index is of another model so far: a server refuses queries of another model than its version has."""
    with suppress(ArtifactError):  # no index yet, or one that is worth replacing
        current = IndexVersion.open(index, verify=False).manifest
        if current.model != embeddings.model:
            models = [f"{made.model_name} ({made.model[:12]})" for made in (current, embeddings)]
            print(
                f"warning: {index} was of the model {models[0]} and will be of {models[1]}: queries must follow",
                file=sys.stderr,
            )


def _held(embeddings: Embeddings, gallery: NDArray[np.int64], left_out: set[str]) -> HeldOutPhotos:
    """Return the dev photos with labels of the gallery that are neither in the gallery nor left out, and show a car.

    A photo without one is unknown, whatever is nearest to it: confidences and thresholds are for the others.
    """
    photos, indexed = embeddings.photos, set(gallery.tolist())
    labels = {photos[row].label.label for row in indexed}
    rows = [
        row
        for row, photo in enumerate(photos)
        if photo.split == "dev"
        and row not in indexed
        and photo.label.label in labels
        and photo.path not in left_out
        and not photo.no_car_found
    ]
    return HeldOutPhotos(embeddings.matrix, np.array(rows, np.int64), [photos[row].label for row in rows])


def _summary(version: IndexVersion) -> str:
    made = version.manifest
    what = f"{made.items} photos of {made.labels} labels, {made.dimension}-d"
    return f"{version.path}: {what}, {made.factory} ({made.metric}), shards: {len(made.shards)}"


def describe_calibration(fitted: Calibration | None, held: HeldOutPhotos) -> str:
    """Return a sentence that says what was fitted, or why nothing was, for a user of the command line."""
    if fitted is None:
        there = f"{len(held.rows)} of {len(set(held.labels))} labels"
        needed = f"that takes {LEAST_PHOTOS} dev photos of {LEAST_LABELS} labels outside the gallery, there are {there}"
        return f"not calibrated, so it never says unknown, and confidences are shares of the vote: {needed}"
    vote = f"k {fitted.k}, temperature {fitted.temperature:.3g}, prior {fitted.prior:g}"
    error = fitted.errors["label"]
    errors = f"calibration error of the label {error.before:.1%}, calibrated {error.after:.1%}"
    return f"calibrated on {fitted.photos} dev photos: {vote}; {errors}"
