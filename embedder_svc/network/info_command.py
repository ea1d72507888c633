"""`vmmr-embedder info`: verify a model bundle, and print its description."""

import argparse
import dataclasses
import json
from pathlib import Path

from embedder_svc.network import bundle


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "info", help="verify a model bundle and print it", description="Verifies a model bundle and prints it as JSON."
    )
    parser.add_argument("model", metavar="BUNDLE", type=Path, help="directory of the model bundle")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    print(json.dumps(dataclasses.asdict(bundle.read(args.model)), indent=2))
