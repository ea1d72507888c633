"""`vmmr-search engine`: looks at the replicas on a Ray cluster, and changes how many there are."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from search_svc.serving.config import PREFIX, SearchConfig
from svckit import cli, config, ray_cluster
from svckit.cli import CommandError
from svckit.extras import needing

_NOBODY = "no server with --engine ray is connected to this cluster"


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "engine",
        help="show or change the replicas on a Ray cluster",
        description="Shows or changes what servers with --engine ray have on a Ray cluster.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "status", "print versions, replicas, nodes and servers as JSON", _status)
    scale = _add(commands, "scale", "change the number of replicas of every shard", _scale)
    scale.add_argument(
        "--replicas", required=True, type=cli.count, metavar="N", help="replicas of each shard, on as many nodes"
    )


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--ray-address", metavar="HOST:PORT", help=f"of the Ray cluster (env {PREFIX}_RAY_ADDRESS)")
    parser.set_defaults(run=run)
    return parser


def _status(args: argparse.Namespace) -> None:
    status = _ask_keeper(args, lambda keeper: keeper.status.remote())
    if status is None:
        raise CommandError(_NOBODY)
    print(json.dumps(status, indent=2))


def _scale(args: argparse.Namespace) -> None:
    if not _ask_keeper(args, lambda keeper: keeper.scale.remote(args.replicas)):
        raise CommandError(_NOBODY)
    print(
        f"every shard gets {args.replicas} replicas, as far as there are nodes: `vmmr-search engine status` shows them"
    )


def _ask_keeper(args: argparse.Namespace, question: Callable[[Any], Any]) -> Any:
    """Return what the keeper of the cluster answers, or None if there is none."""
    address = config.setting(SearchConfig, PREFIX, "ray_address", args)
    if address is None:
        raise CommandError(f"--ray-address or {PREFIX}_RAY_ADDRESS must be given")
    ray_cluster.check_form(str(address), "--ray-address")
    with needing("ray", CommandError):
        from search_svc.engine.cluster.connection import ask_keeper  # noqa: PLC0415 (needs Ray)
    return ask_keeper(str(address), question)
