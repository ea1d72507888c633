"""`vmmr-search migrate`: builds an index for another model from the photos of an index, from the command line."""

import argparse
import sys
from pathlib import Path

import vmmr
from vmmr import _tokens
from vmmr._cli.exits import tell_waits
from vmmr._cli.report import explained, in_flags

from search_svc.building import resource_flags
from search_svc.building.build_command import describe_calibration
from search_svc.building.migration import GalleryEmbedder, Migration, PhotoFetcher, migrate
from search_svc.dataset.embeddings import Embeddings
from svckit.cli import CommandError


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "migrate",
        help="build an index for another model from the photos of this one",
        description="Embeds the photos of an index anew, with the model that a running embedder serves, and builds an index of "
        "them beside the old one, which serves on. If it is stopped, the same command goes on from where it was. Run again, "
        "it embeds only what was added since, and builds the next version.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="the old index, served or not")
    parser.add_argument("new", metavar="NEW_INDEX", type=Path, help="the new index")
    parser.add_argument(
        "--embedder",
        metavar="HOST:PORT",
        default="127.0.0.1:50051",
        help="the embedder that serves the new model (default: %(default)s)",
    )
    parser.add_argument(
        "--photos", metavar="ROOT", type=Path, help="the folder that uris which are paths are relative to"
    )
    parser.add_argument(
        "--dev",
        metavar="EMBEDDINGS",
        type=Path,
        help="fit confidences on the dev photos of these embeddings, which the new model has made",
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="leave out photos that cannot be read or embedded, and name them"
    )
    parser.add_argument("--factory", help="faiss factory string (default: the old index's)")
    parser.add_argument("--batch", type=int, default=16, help="most photos in one request (default: 16)")
    parser.add_argument("--timeout", metavar="S", type=float, default=60.0, help="seconds for a request (default: 60)")
    parser.add_argument("--tls-ca", metavar="PEM", type=Path, help="connect securely, trusting these certificates")
    parser.add_argument("--token-file", metavar="F", type=Path, help="a file with the embedder's bearer token")
    parser.add_argument(
        "--allow-private", action="store_true", help="fetch http(s) uris from private and loopback addresses, too"
    )
    resource_flags.add(parser, every_core=False)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    for name, least in (("batch", 1), ("timeout", 0.001)):
        if not least <= getattr(args, name) < float("inf"):
            raise CommandError(f"--{name} must be >= {least}, got {getattr(args, name):g}")
    resources = resource_flags.read(args)
    if args.photos and not args.photos.is_dir():
        raise CommandError(f"--photos: there is no folder {args.photos}")
    dev = Embeddings.open(args.dev) if args.dev else None
    try:
        with _client(args) as client:
            done = migrate(
                args.index,
                args.new,
                GalleryEmbedder(client, PhotoFetcher(args.photos, args.allow_private), args.batch),
                dev=dev,
                skip_missing=args.skip_missing,
                factory=args.factory,
                resources=resources,
            )
    except vmmr.VmmrError as error:
        raise CommandError(f"{args.embedder}: {explained(error)}: run it again to go on") from error
    _report(args, done)


def _client(args: argparse.Namespace) -> vmmr.Client:
    tell_waits("vmmr-search")
    token = _token(args)
    try:
        return vmmr.Client(
            args.embedder,
            timeout_s=args.timeout,
            tls=vmmr.TLS(ca=args.tls_ca) if args.tls_ca else None,
            token=token,
        )
    except ValueError as error:
        raise CommandError(in_flags(str(error))) from error


def _token(args: argparse.Namespace) -> str | None:
    try:
        return _tokens.read(args.token_file) if args.token_file else None
    except OSError as error:
        raise CommandError(f"token file {args.token_file}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error


def _report(args: argparse.Namespace, done: Migration) -> None:
    for each in done.left_out:
        print(f"left out: {each.item_id}: {in_flags(each.reason)}", file=sys.stderr)
    if done.version is None:
        print(f"{args.new}: holds all that {args.index} does, its journal up to {done.upto}: nothing was built")
        return
    made = done.version.manifest
    left_out = f", {len(done.left_out)} left out" if done.left_out else ""
    print(
        f"{done.version.path}: {made.items} photos of {made.labels} labels ({done.embedded} embedded now{left_out}), "
        f"of {made.model_name} ({made.model[:12]}), {args.index} up to entry {done.upto} of its journal"
    )
    if done.held:
        print(describe_calibration(done.version.calibration, done.held))
    else:
        print("not calibrated: confidences of one model are none of another's; --dev EMBEDDINGS fits them anew")
