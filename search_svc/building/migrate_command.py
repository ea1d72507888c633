"""`vmmr-search migrate`: the command."""

import argparse
import sys
from pathlib import Path

import vmmr

from search_svc.building.build_command import calibrated
from search_svc.building.migration import Migrated, Where, migrate
from search_svc.building.spec import MEMORY_BYTES, Resources
from search_svc.dataset.embeddings import Embeddings
from svckit.cli import CommandError


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "migrate",
        help="build an index for another model from the photos of this one",
        description="Embeds the photos of an index anew, with the model that a running embedder serves, and builds an index of "
        "them beside the old one, which serves on. Stopped, it goes on from where it was. Run again, it embeds only what was "
        "added since, and builds the next version.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="the old index, served or not")
    parser.add_argument("new", metavar="NEW_INDEX", type=Path, help="the new one")
    parser.add_argument(
        "--embedder", metavar="HOST:PORT", default="127.0.0.1:50051", help="of the new model (default: %(default)s)"
    )
    parser.add_argument(
        "--photos", metavar="ROOT", type=Path, help="the folder that uris which are paths are relative to"
    )
    parser.add_argument(
        "--dev", metavar="EMBEDDINGS", type=Path, help="fit confidences on the dev photos of these, of the new model"
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="leave out photos that cannot be had or embedded, and name them"
    )
    parser.add_argument("--factory", help="faiss factory string (default: the old index's)")
    parser.add_argument("--batch", type=int, default=16, help="most photos in one request (default: 16)")
    parser.add_argument("--timeout", metavar="S", type=float, default=60.0, help="seconds for a request (default: 60)")
    parser.add_argument("--tls-ca", metavar="PEM", type=Path, help="connect securely, trusting these certificates")
    parser.add_argument("--token-file", metavar="F", type=Path, help="a file with the embedder's bearer token")
    parser.add_argument(
        "--allow-private", action="store_true", help="fetch http(s) uris from private and loopback addresses, too"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that fill a shard each (default: 1)")
    parser.add_argument(
        "--memory",
        metavar="GIB",
        type=float,
        default=MEMORY_BYTES // 2**30,
        help="what it may hold beside the shards that are being filled (default: %(default)g)",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    for name, least in (("batch", 1), ("workers", 1), ("memory", 0.125), ("timeout", 0.001)):
        if not least <= getattr(args, name) < float("inf"):
            raise CommandError(f"--{name} must be >= {least}, got {getattr(args, name):g}")
    if args.photos and not args.photos.is_dir():
        raise CommandError(f"--photos: there is no folder {args.photos}")
    dev = Embeddings.open(args.dev) if args.dev else None
    try:
        with _client(args) as client:
            done = migrate(
                args.index,
                args.new,
                client,
                Where(args.photos, args.allow_private),
                dev=dev,
                skip_missing=args.skip_missing,
                factory=args.factory,
                batch=args.batch,
                resources=Resources(args.workers, int(args.memory * 2**30)),
            )
    except vmmr.VmmrError as error:
        raise CommandError(f"{args.embedder}: {error}: run it again to go on") from error
    _tell(args, done)


def _client(args: argparse.Namespace) -> vmmr.Client:
    token = args.token_file.read_text().strip() if args.token_file else None
    try:
        return vmmr.Client(
            args.embedder,
            timeout_s=args.timeout,
            tls=vmmr.TLS(ca=args.tls_ca) if args.tls_ca else None,
            token=token,
        )
    except ValueError as error:
        raise CommandError(str(error)) from error


def _tell(args: argparse.Namespace, done: Migrated) -> None:
    for each in done.lost:
        print(f"left out: {each.item_id}: {each.reason}", file=sys.stderr)
    if done.version is None:
        print(f"{args.new}: holds all that {args.index} does, its journal up to {done.upto}: nothing was built")
        return
    made = done.version.manifest
    left_out = f", {len(done.lost)} left out" if done.lost else ""
    print(
        f"{done.version.path}: {made.items} photos of {made.labels} labels ({done.embedded} embedded now{left_out}), "
        f"of {made.model_name} ({made.model[:12]}), {args.index} up to entry {done.upto} of its journal"
    )
    if done.held:
        print(calibrated(done.version.calibration, done.held))
    else:
        print("not calibrated: confidences of one model are none of another's; --dev EMBEDDINGS fits them anew")
