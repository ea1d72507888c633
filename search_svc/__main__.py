"""`vmmr-search`: embeddings to make, model and year, served; and the offline steps of an index.

Here the server is put together: queries are batched across calls, and searched in a thread for each shard.
"""

import argparse
import logging
import os
import time

from svckit.extras import needing_services

with needing_services("vmmr-search"):
    from vmmr.search.v1 import search_pb2_grpc

    from search_svc import build_command, evaluate, info, split, versions_command
    from search_svc.audit import command as audit
    from search_svc.config import PREFIX, SearchConfig
    from search_svc.gpu import all_gpus
    from search_svc.local import LocalEngine
    from search_svc.queries import Limits, Plan, Query
    from search_svc.searcher import Found, Searcher
    from search_svc.select import command as select
    from search_svc.service import SERVICE, SearchService
    from search_svc.version import IndexVersion
    from svckit import cli, config, logs, supervisor, wheels
    from svckit.batcher import Batcher
    from svckit.config import ConfigError
    from svckit.server import Server
    from svckit.worker import Worker

PROGRAM = "vmmr-search"

_log = logging.getLogger(__name__)


def main() -> None:
    cli.run(_command, PROGRAM)


def _command() -> None:
    args = parser().parse_args()
    wheels.check_one_of("faiss-cpu", "faiss-gpu")
    args.run(args)


def parser() -> argparse.ArgumentParser:
    program = argparse.ArgumentParser(PROGRAM, description="Embeddings to make, model and year.")
    cli.add_version(program)
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve", help="answer gRPC calls", description="Serves vmmr.search.v1.SearchService.", allow_abbrev=False
    )
    config.add_arguments(serve, SearchConfig, PREFIX)
    serve.set_defaults(
        run=lambda args: supervisor.serve(_serve, config.from_namespace(SearchConfig, PREFIX, args), PROGRAM)
    )
    for step in (split, audit, select, build_command, evaluate, info, versions_command):
        step.add(commands)
    return program


async def _serve(settings: SearchConfig, worker: Worker | None) -> None:
    logs.configure(settings.log_level, settings.log_format)
    started = time.perf_counter()
    gpus = all_gpus() if settings.device == "cuda" else ()
    version = _open(settings)
    server = Server(settings, name="search", worker=worker)
    with LocalEngine.open(version, gpus) as engine:
        seconds = round(time.perf_counter() - started, 3)
        _log.info("opened", extra={"index": str(version.path), "seconds": seconds, "verified": settings.verify})
        searcher = Searcher(version, engine)
        batcher = server.metrics.batcher(
            "search", searcher.run, max_batch=settings.max_batch, max_queue=settings.max_queue
        )
        server.metrics.gauge(
            "vmmr_abandoned_searches", "Searches of shards that took too long, and still run", lambda: engine.abandoned
        )
        servicer = SearchService(
            version,
            batcher,
            tunable=engine.tunable,
            limits=_limits(settings),
            on_partial=server.metrics.counter("vmmr_partial_replies_total", "Replies that lack shards"),
        )
        server.add(search_pb2_grpc.add_SearchServiceServicer_to_server, servicer, SERVICE)

        async def close() -> None:
            # Nobody waits any more for what is still searched.
            engine.interrupt()
            await batcher.close()

        await server.run(warm_up=lambda: _warm_up(version, batcher), close=close)
    if engine.abandoned:
        # Were the interpreter to end beside threads that are in faiss, the process would crash.
        os._exit(0)


def _open(settings: SearchConfig) -> IndexVersion:
    if not settings.index.is_dir():
        raise ConfigError(f"--index (SEARCH_INDEX): there is no folder {settings.index.absolute()}")
    version = IndexVersion.open(settings.index, verify=settings.verify)
    if settings.max_k < version.manifest.k:
        raise ConfigError(
            f"--max-k (SEARCH_MAX_K) must be >= {version.manifest.k}, the k of the index, got {settings.max_k}"
        )
    return version


def _limits(settings: SearchConfig) -> Limits:
    return Limits(
        max_queries=settings.max_queries,
        max_k=settings.max_k,
        max_request_bytes=settings.max_request_bytes,
        max_shard_timeout_ms=round(1e3 * settings.shard_timeout_s),
    )


async def _warm_up(version: IndexVersion, batcher: Batcher[Query, Found]) -> None:
    """Searches once, so that no caller waits for what faiss sets up on first use."""
    plan = Plan(version.manifest.k, version.manifest.search, exact=False, labels=None)
    await batcher.submit([Query(version.embeddings[0].astype("float32"), plan)])


if __name__ == "__main__":
    main()
