"""`vmmr-embedder embed`: from a manifest of photos to their embeddings."""

import argparse
import csv
import dataclasses
import functools
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from embedder_svc.network.cars import Subject
from embedder_svc.network.choice import choose_bundle
from embedder_svc.network.model import Model
from embedder_svc.network.runtime import DEVICES, Device, on_gpu
from embedder_svc.offline import on_ray
from embedder_svc.offline.chunks import Embedder, LocalEmbedder, Work
from embedder_svc.offline.draft import Dtype, partial
from embedder_svc.offline.embed import UNREADABLE_FILE, embed
from embedder_svc.photos import photo_folder
from embedder_svc.photos.manifest import Manifest
from embedder_svc.serving.config import PREFIX, EmbedderConfig
from svckit import config, ray_cluster
from svckit.artifact import ArtifactError, refuse_existing
from svckit.cli import CommandError, count, progress, tell_next
from svckit.cores import cores

_NAMED = 5
"""The number of unreadable photos that are named on stderr: one bad folder may hold thousands."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "embed",
        help="embed the photos of a manifest",
        description="Writes a directory with embeddings.npy, items.csv (the manifest's lines, row by row, "
        "and, if the model finds cars, the part of each photo), "
        "unreadable.csv (photos that were left out, and why) and manifest.json. If it is stopped, the same command goes on from there.",
        allow_abbrev=False,
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="manifest.csv, as `vmmr-search split` makes it")
    parser.add_argument(
        "--photos",
        metavar="DIR",
        required=True,
        help="where the manifest's paths start: a folder, or a URL that fsspec can read, for example s3://bucket/cars, with s3fs installed",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the directory to write")
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        type=Path,
        help=f"the model bundle (default: the model that ships; env {PREFIX}_MODEL)",
    )
    parser.add_argument("--device", choices=DEVICES, help="what runs the network (default: auto)")
    parser.add_argument(
        "--dtype", choices=get_args(Dtype), default="float16", help="type of the stored embeddings (default: float16)"
    )
    parser.add_argument(
        "--batch", metavar="N", type=count, help="most photos in one run of the network (default: as suits the device)"
    )
    parser.add_argument("--threads", metavar="N", type=count, help="photos a CPU runs at once (default: one a core)")
    parser.add_argument("--workers", metavar="N", type=count, help="threads that decode photos (default: one a core)")
    parser.add_argument(
        "--whole", action="store_true", help="embed whole photos, also with a model that finds the car in them"
    )
    _add_ray_flags(parser)
    parser.set_defaults(run=_run)


def _add_ray_flags(parser: argparse.ArgumentParser) -> None:
    ray = parser.add_argument_group(
        "on a Ray cluster", "The nodes need the photos under the same path or URL, and vmmr of this version."
    )
    ray.add_argument(
        "--ray",
        metavar="HOST:PORT",
        help="embed on the cluster whose head is there, and of which this machine is a node",
    )
    ray.add_argument(
        "--actors", metavar="N", type=count, help="processes that embed (default: as many as the nodes have room for)"
    )
    ray.add_argument("--actor-cpus", metavar="N", type=count, help="cores of each (default: 1)")
    ray.add_argument(
        "--actor-gpus",
        metavar="SHARE",
        type=_share,
        help="GPUs of each, for example 0.5 (default: none, it runs on its cores)",
    )


def _run(args: argparse.Namespace) -> None:
    if (args.out / "manifest.json").exists():
        raise ArtifactError(
            args.out, "is finished", "build an index of it (vmmr-search build), or delete it to embed anew"
        )
    refuse_existing(args.out)
    _check_flags(args)
    folder = photo_folder.at(args.photos)
    manifest = Manifest.read(args.manifest)
    folder.check(manifest.paths[0])
    work = Work(folder, args.dtype, args.whole)
    bar = functools.partial(_progress, len(manifest.rows), partial(args.out))
    try:
        with _embedder(args, work) as embedder:
            made = embed(manifest, work, embedder, args.out, bar=bar)
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        raise
    _warn_of_unreadable(args.out / UNREADABLE_FILE)
    print(_summary(args.out, len(manifest.rows), made))
    tell_next("vmmr-search", "build", args.out, "--out", "index")


def _check_flags(args: argparse.Namespace) -> None:
    """Raise CommandError if --ray is no address, or a flag is given that means nothing with, or without, it."""
    if args.ray is not None:
        ray_cluster.check_form(args.ray, "--ray")
    without = {"--threads": args.threads, "--workers": args.workers, "--device": args.device}
    only = {"--actors": args.actors, "--actor-cpus": args.actor_cpus, "--actor-gpus": args.actor_gpus}
    for flag, value in (without if args.ray else only).items():
        if value is not None:
            other = "is for this machine, not for --ray: --actor-cpus and --actor-gpus say what an actor takes"
            raise CommandError(f"{flag} {other if args.ray else 'is for --ray'}")


@contextmanager
def _embedder(args: argparse.Namespace, work: Work) -> Iterator[Embedder]:
    """Yield what embeds: this process, or actors of a cluster."""
    if args.ray is None:
        device: Device = args.device or "auto"
        model = Model.open(_bundle(args, device), device=device, threads=args.threads, max_batch=args.batch)
        yield LocalEmbedder(model, work, workers=args.workers or cores())
        return
    share = on_ray.Share(args.actor_cpus or 1, args.actor_gpus or 0)
    path = _bundle(args, share.device)
    shared = dataclasses.replace(work, folder=work.folder.for_others())
    with ray_cluster.connected(args.ray) as ray:
        yield on_ray.RayEmbedder(ray, path, shared, share, actors=args.actors, max_batch=args.batch)


def _share(text: str) -> float:
    """Parse a share of a GPU, or a number of them. Raise argparse.ArgumentTypeError."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not (0 < share < 1 or (share >= 1 and share.is_integer())):
        raise argparse.ArgumentTypeError(f"must be a part of a GPU, as 0.25, or a whole number of them, got {text!r}")
    return share


def _summary(out: Path, photos: int, made: Mapping[str, Any]) -> str:
    """Return a line that accounts for every photo of the manifest."""
    how = "whole"
    if made.get("subject") == Subject.MAIN_CAR.value:
        around = made["count"] - made["cut"] - made["no_car_found"]
        how = f"{made['cut']} cut to their car, {around} whole, since the car fills them, {made['no_car_found']} whole, since no car was found"
    unreadable = f"{made['skipped']} unreadable" + (f", listed in {UNREADABLE_FILE}" if made["skipped"] else "")
    return f"{out}: {photos} photos in the manifest: {made['count']} embedded by {made['model_name']} ({how}); {unreadable}"


def _bundle(args: argparse.Namespace, device: Device) -> Path:
    """Return the bundle that a server with this model, and on this device, would serve."""
    model = config.setting(EmbedderConfig, PREFIX, "model", args)
    if not model.is_dir():
        raise CommandError(f"--model ({PREFIX}_MODEL): there is no folder {model.absolute()}")
    precision = config.setting(EmbedderConfig, PREFIX, "precision", args)
    return choose_bundle(model, precision, gpu=on_gpu(device))


def _warn_of_unreadable(table: Path) -> None:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows:
        first = "".join(f"\n  {row['path']}: {row['reason']}" for row in rows[:_NAMED])
        more = "\n  ..." if len(rows) > _NAMED else ""
        print(
            f"warning: {len(rows)} photos can't be read and were left out; {table} lists them:{first}{more}",
            file=sys.stderr,
        )


def _progress(photos: int, draft: Path, *, total: int) -> Any:
    """Return the progress bar of the photos to do; if some are done already, say so before it."""
    if total < photos:
        print(f"going on with {draft}: {photos - total} of {photos} photos are done", file=sys.stderr)
    return progress(total=total, desc="embed", unit="photo")
