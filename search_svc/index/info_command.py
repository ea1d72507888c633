"""`vmmr-search info`: what an index says of itself."""

import argparse
import dataclasses
import json
from pathlib import Path

from search_svc.index.journal import Journal
from search_svc.index.version import IndexVersion


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "info",
        help="verify an index and print what it is",
        description="Verifies the current version of an index, and that its journal is there and ends where it must, and prints the version's manifest as JSON.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    manifest = IndexVersion.open(args.index).manifest
    Journal.open(args.index).close()
    print(json.dumps(dataclasses.asdict(manifest), indent=2, default=str))
