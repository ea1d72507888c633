"""`vmmr-search`: embeddings to make, model and year, served; and the offline steps of an index.

Here the server is put together: queries are batched across calls, and searched in a thread for each shard.
"""

import argparse
import asyncio

from vmmr.search.v1 import search_pb2_grpc

from search_svc import build_command, evaluate, info, split
from search_svc.audit import command as audit
from search_svc.config import PREFIX, SearchConfig
from search_svc.local import LocalEngine
from search_svc.queries import Limits, Plan, Query
from search_svc.searcher import Found, Searcher
from search_svc.service import SERVICE, SearchService
from search_svc.version import IndexVersion
from svckit import cli, config
from svckit.batcher import Batcher
from svckit.config import ConfigError
from svckit.server import Server

PROGRAM = "vmmr-search"


def main() -> None:
    cli.run(_command, PROGRAM)


def _command() -> None:
    args = parser().parse_args()
    args.run(args)


def parser() -> argparse.ArgumentParser:
    program = argparse.ArgumentParser(PROGRAM, description="Embeddings to make, model and year.")
    cli.add_version(program)
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve", help="answer gRPC calls", description="Serves vmmr.search.v1.SearchService.", allow_abbrev=False
    )
    config.add_arguments(serve, SearchConfig, PREFIX)
    serve.set_defaults(run=lambda args: asyncio.run(_serve(config.from_namespace(SearchConfig, PREFIX, args))))
    for step in (split, audit, build_command, evaluate, info):
        step.add(commands)
    return program


async def _serve(settings: SearchConfig) -> None:
    if not settings.index.is_dir():
        raise ConfigError(f"--index (SEARCH_INDEX): there is no folder {settings.index.absolute()}")
    version = IndexVersion.open(settings.index)
    if settings.max_k < version.manifest.k:
        raise ConfigError(
            f"--max-k (SEARCH_MAX_K) must be >= {version.manifest.k}, the k of the index, got {settings.max_k}"
        )
    server = Server(settings, name="search")
    with LocalEngine.open(version) as shards:
        searcher = Searcher(version, shards)
        batcher = server.metrics.batcher(
            "search", searcher.run, max_batch=settings.max_batch, max_queue=settings.max_queue
        )
        limits = Limits(settings.max_queries, settings.max_k, settings.max_request_bytes)
        servicer = SearchService(version, batcher, tunable=shards.tunable, limits=limits)
        server.add(search_pb2_grpc.add_SearchServiceServicer_to_server, servicer, SERVICE)
        await server.run(warm_up=lambda: _warm_up(version, batcher), close=batcher.close)


async def _warm_up(version: IndexVersion, batcher: Batcher[Query, Found]) -> None:
    """Searches once, so that no caller waits for what faiss sets up on first use."""
    plan = Plan(version.manifest.k, version.manifest.search, exact=False, labels=None)
    await batcher.submit([Query(version.embeddings[0].astype("float32"), plan)])


if __name__ == "__main__":
    main()
