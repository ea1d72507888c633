"""`vmmr-search`: serves an index, which answers embeddings with make, model and year; and has the offline steps that make one.

Here the server is put together: queries are batched across calls, and searched in a thread for each shard; the gallery
follows the journal of the index, and the version that is current.
"""

from vmmr_entry import quietly

from svckit.extras import needing, needing_services

with needing_services("vmmr-search"):
    import argparse
    import logging
    import math
    import os
    import shutil
    import sys
    import time
    from collections.abc import Callable, Iterator
    from contextlib import contextmanager
    from functools import partial
    from pathlib import Path
    from typing import TYPE_CHECKING

    from vmmr.gallery.v1 import gallery_pb2_grpc
    from vmmr.search.v1 import search_pb2_grpc

    from search_svc.audit import command as audit
    from search_svc.building import build_command, migrate_command, versions_command
    from search_svc.dataset import split
    from search_svc.engine.engine import Engine
    from search_svc.engine.gpu import all_gpus
    from search_svc.engine.local import LocalEngine
    from search_svc.evaluation import evaluate
    from search_svc.fetching import command as fetch
    from search_svc.index import backup_command, repair_command
    from search_svc.index import info_command as info
    from search_svc.index.backup import check_destination
    from search_svc.index.base import VersionBase
    from search_svc.index.journal import Journal
    from search_svc.index.journal_check import verify
    from search_svc.index.journal_loss import accept, accept_gone
    from search_svc.index.journal_writer import JournalWriter
    from search_svc.index.version import IndexVersion
    from search_svc.index.writes import Write, WriteResult
    from search_svc.live import drill
    from search_svc.live.damage import DamageWatch
    from search_svc.live.following import Follower, Replay
    from search_svc.live.live_gallery import LiveGallery
    from search_svc.live.opening import Opener, warm, warm_up_queries
    from search_svc.live.view import Opened, View
    from search_svc.select import command as select
    from search_svc.serving import engine_command, gallery_service
    from search_svc.serving.answer_metrics import AnswerMetrics
    from search_svc.serving.backups import BackupSchedule
    from search_svc.serving.compactor import Compactor
    from search_svc.serving.config import PREFIX, SearchConfig
    from search_svc.serving.gallery_service import GalleryService
    from search_svc.serving.queries import Limits, Plan, Query
    from search_svc.serving.searcher import Searcher, SearchOutcome
    from search_svc.serving.service import SERVICE, SearchService
    from svckit import cli, config, logs, supervisor, wheels
    from svckit.access import token_command
    from svckit.batcher import Batcher
    from svckit.cli import CommandError
    from svckit.config import ConfigError
    from svckit.metrics import Metrics
    from svckit.server import Server
    from svckit.worker import Worker

if TYPE_CHECKING:
    from search_svc.engine.cluster.connection import Connection

PROGRAM = "vmmr-search"

WHOLE = "vmmr.gallery.v1.GalleryService/whole"
"""The name of the health check that fails while acknowledged writes are lost."""
CLUSTER = "vmmr.search.v1.SearchService/cluster"
"""The name of the health check that fails while the Ray cluster is lost, or a shard has no replica."""
_MAX_WRITES = 256
"""Most writes that are committed together."""

_log = logging.getLogger(__name__)


def main() -> None:
    quietly(lambda: cli.run(_command, PROGRAM))


def _command() -> None:
    if sys.argv[1:2] == ["serve"]:
        supervisor.log_from_the_start(PREFIX, sys.argv)
    args = parser().parse_args()
    wheels.check_one_of("faiss-cpu", "faiss-gpu")
    args.run(args)


def parser() -> argparse.ArgumentParser:
    program = cli.Parser(PROGRAM, description="Embeddings to make, model and year.")
    cli.add_version(program)
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="answer gRPC calls",
        description="Serves vmmr.search.v1.SearchService and vmmr.gallery.v1.GalleryService.",
        allow_abbrev=False,
    )
    config.add_arguments(serve, SearchConfig, PREFIX)
    serve.set_defaults(run=lambda args: supervisor.serve(_serve, SearchConfig, PREFIX, args, PROGRAM))
    for step in (
        fetch,
        split,
        audit,
        select,
        build_command,
        evaluate,
        info,
        versions_command,
        repair_command,
        backup_command,
        drill,
        migrate_command,
        token_command,
        engine_command,
    ):
        step.add(commands)
    return program


async def _serve(settings: SearchConfig, worker: Worker | None) -> None:
    logs.configure(settings.log_level, settings.log_format)
    with _connected(settings) as cluster:
        searching = await _serve_index(settings, worker, cluster)
    if searching:
        # If the interpreter ended beside threads that are in faiss, the process would crash.
        os._exit(0)


async def _serve_index(settings: SearchConfig, worker: Worker | None, cluster: "Connection | None") -> bool:
    """Serve to the end. Return whether threads may still be searching then."""
    opener = _opener(settings, cluster)
    server = Server(settings, name="search", worker=worker)
    _accept_loss(settings)
    # The follower has one journal, calls that read items have another: neither waits for the other.
    damage = DamageWatch(partial(verify, settings.index))
    with Journal.open(settings.index) as journal, Journal.open(settings.index, damage.suspect) as items:
        items.verify()
        follower = _follower(settings, opener, journal)
        gallery = follower.gallery
        queries = _queries(settings, server.metrics, gallery)
        writer = JournalWriter(settings.index, lambda: VersionBase(gallery.view.opened.version), damage.suspect)
        writes = server.metrics.batcher(
            "writes", writer.commit, max_batch=_MAX_WRITES, max_queue=settings.max_queue, stage="commit"
        )
        compactor = _compactor(settings, items, gallery, damage, server.metrics)
        _add_search_service(server, settings, follower, queries, lambda: _problem(follower, damage, cluster))
        _add_gallery_service(server, settings, follower, items, writes=writes, compactor=compactor)
        backups = _backups(settings, server.metrics, worker)
        _add_metrics(server.metrics, opener, follower, damage)
        _add_disk_metrics(server.metrics, settings.index)
        server.claim(WHOLE, lambda: not follower.lost)
        if cluster:
            _watch(cluster, server)

        async def warm_up() -> None:
            if cluster:
                cluster.watch.when_given_up(lambda reason: server.end(CommandError(reason)))
            await _warm_up(gallery.view, queries)
            follower.start()
            damage.start()
            compactor.start()
            if backups:
                backups.start()

        async def close() -> None:
            # The calls have ended: nobody waits any more for searches that still run.
            opener.interrupt()
            await queries.close()
            await compactor.close()
            if backups:
                await backups.close()
            await writes.close()
            if not settings.read_only:
                writer.close()

        try:
            await server.run(warm_up=warm_up, close=close)
        finally:
            follower.stop()
            damage.stop()
    opener.close()
    return bool(opener.abandoned or follower.opening)


@contextmanager
def _connected(settings: SearchConfig) -> "Iterator[Connection | None]":
    """Connect to the Ray cluster, if the settings name one, for as long as the block lasts."""
    if settings.ray_address is None:
        yield None
        return
    with needing("ray", CommandError):
        from search_svc.engine.cluster.connection import Connection  # noqa: PLC0415 (needs Ray)
    cluster = Connection(settings.ray_address, settings.replicas)
    try:
        yield cluster
    except BaseException:
        cluster.close(exit_code=1)
        raise
    cluster.close()


def _watch(cluster: "Connection", server: Server) -> None:
    """Have health and metrics tell how the cluster is."""
    server.claim(CLUSTER, lambda: not cluster.problem, watched=True)
    gauge = server.metrics.gauge
    gauge(
        "vmmr_ray_cluster_lost",
        "1 while the GCS of the Ray cluster cannot be reached",
        lambda: bool(cluster.watch.problem),
    )
    gauge("vmmr_replicas_missing", "Replicas that should be up on the Ray cluster and are not", lambda: cluster.missing)
    gauge("vmmr_shards_without_replica", "Shards that have no replica up", lambda: cluster.without_replica)


def _opener(settings: SearchConfig, cluster: "Connection | None") -> Opener:
    if not settings.index.is_dir():
        raise ConfigError(f"--index (VMMR_SEARCH_INDEX): there is no folder {settings.index.absolute()}")
    return Opener(settings.index, _engines(settings, cluster), max_k=settings.max_k)


def _engines(settings: SearchConfig, cluster: "Connection | None") -> Callable[[IndexVersion], Engine]:
    """Return what opens an engine for a version."""
    if cluster is None:
        return partial(LocalEngine.open, gpus=all_gpus() if settings.device == "cuda" else ())
    from search_svc.engine.cluster.ray_engine import RayEngine  # noqa: PLC0415 (needs Ray)

    storage = settings.ray_storage or str(settings.index.absolute())
    return partial(RayEngine.open, connection=cluster, storage=storage, cache=settings.ray_cache)


def _accept_loss(settings: SearchConfig) -> None:
    if not settings.accept_loss:
        return
    if (last := accept_gone(settings.index)) is not None:
        _log.error("the journal is lost, and it goes on without what was written since", extra={"held_until": last})
    if lost := accept(settings.index):
        _log.error("acknowledged entries are lost, and it goes on all the same", extra={"entries": lost})


def _follower(settings: SearchConfig, opener: Opener, journal: Journal) -> Follower:
    # From here on only the follower's gallery may hold the version: once another takes its place, it is to be closed.
    replay = Replay(_open_first(opener, settings), journal)
    replay.finish()
    return Follower(settings.index, journal, replay, lambda: _open_next(opener))


def _open_first(opener: Opener, settings: SearchConfig) -> Opened:
    started = time.perf_counter()
    opened = opener.current(verify=settings.verify)
    seconds = round(time.perf_counter() - started, 3)
    _log.info("opened", extra={"index": str(opened.version.path), "seconds": seconds, "verified": settings.verify})
    return opened


def _open_next(opener: Opener) -> Opened:
    """Open a version to switch to. Its bytes are not verified: its builder has done so, and they are in the page cache."""
    opened = opener.current()
    warm(opened)
    return opened


def _queries(settings: SearchConfig, metrics: Metrics, gallery: LiveGallery) -> Batcher[Query, SearchOutcome]:
    searcher = Searcher(lambda: gallery.view)
    return metrics.batcher(
        "search",
        searcher.run,
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        longest_s=lambda: searcher.longest_s,
        stage="shards",
    )


def _compactor(
    settings: SearchConfig, items: Journal, gallery: LiveGallery, damage: DamageWatch, metrics: Metrics
) -> Compactor:
    failed = metrics.counter("vmmr_compaction_failures_total", "Compactions that could not build a version")

    def on_failure() -> None:
        failed()
        damage.suspect()

    return Compactor(
        settings.index,
        items,
        lambda: gallery.view.manifest,
        keep_versions=settings.keep_versions,
        compact_at=0 if settings.read_only else settings.compact_at,
        on_failure=on_failure,
    )


def _backups(settings: SearchConfig, metrics: Metrics, worker: Worker | None) -> BackupSchedule | None:
    """Return the schedule of backups, if there is to be one. Of several workers the first keeps it."""
    if settings.backup_to is None or (worker and worker.number > 0):
        return None
    try:
        check_destination(settings.index, settings.backup_to)
    except CommandError as error:
        raise ConfigError(f"--backup-to (VMMR_SEARCH_BACKUP_TO): {error}") from error
    backups = BackupSchedule(
        settings.index, settings.backup_to, every_s=settings.backup_every_s, keep=settings.backup_keep
    )
    metrics.gauge(
        "vmmr_backup_age_seconds", "Seconds since the last backup that succeeded was begun", lambda: backups.age_s
    )
    metrics.gauge("vmmr_backup_failures", "Backups that failed since the server started", lambda: backups.failures)
    return backups


def _add_search_service(
    server: Server,
    settings: SearchConfig,
    follower: Follower,
    queries: Batcher[Query, SearchOutcome],
    problem: Callable[[], str],
) -> None:
    servicer = SearchService(
        follower.gallery,
        queries,
        limits=_limits(settings),
        on_partial=server.metrics.counter("vmmr_partial_replies_total", "Replies that lack shards"),
        count=AnswerMetrics(server.metrics).count,
        problem=problem,
        lost=lambda: follower.lost,
    )
    server.add(search_pb2_grpc.add_SearchServiceServicer_to_server, servicer, SERVICE)


def _problem(follower: Follower, damage: DamageWatch, cluster: "Connection | None" = None) -> str:
    """Return what is wrong with the index, and the cluster; empty if nothing is known to be."""
    return "; ".join(filter(None, (follower.problem, damage.problem, cluster.problem if cluster else "")))


def _add_gallery_service(
    server: Server,
    settings: SearchConfig,
    follower: Follower,
    items: Journal,
    *,
    writes: Batcher[Write, WriteResult],
    compactor: Compactor,
) -> None:
    servicer = GalleryService(
        settings.index,
        follower.gallery,
        items,
        None if settings.read_only else writes,
        compactor,
        on_write=follower.notify,
        unserved=follower.unserved,
    )
    server.add(gallery_pb2_grpc.add_GalleryServiceServicer_to_server, servicer, gallery_service.SERVICE)


def _add_metrics(metrics: Metrics, opener: Opener, follower: Follower, damage: DamageWatch) -> None:
    gallery = follower.gallery
    metrics.gauge(
        "vmmr_abandoned_searches", "Searches of shards that took too long, and still run", lambda: opener.abandoned
    )
    metrics.gauge("vmmr_gallery_items", "Photos in the gallery", lambda: gallery.view.size)
    metrics.gauge(
        "vmmr_delta_items",
        "Of them, those written since the version was built",
        lambda: gallery.view.written.live_items if gallery.view.written else 0,
    )
    metrics.gauge(
        "vmmr_journal_sequence", "Last entry of the journal that is in the gallery", lambda: gallery.view.sequence
    )
    metrics.gauge(
        "vmmr_journal_depth",
        "Of the entries up to it, those that are in the journal alone, and in no version",
        lambda: gallery.view.sequence - gallery.view.manifest.journal_sequence,
    )
    metrics.gauge(
        "vmmr_index_version", "Number of the version that is served", lambda: int(gallery.view.manifest.version)
    )
    metrics.gauge(
        "vmmr_index_switches", "Versions that were switched to since the server started", lambda: follower.switches
    )
    metrics.gauge(
        "vmmr_journal_lost_entries",
        "Entries of the journal that were acknowledged and are lost",
        lambda: follower.lost,
    )
    metrics.gauge(
        "vmmr_index_problem",
        "1 if the server is not at what the index holds, or the journal is damaged",
        lambda: float(bool(_problem(follower, damage))),
    )


def _add_disk_metrics(metrics: Metrics, folder: Path) -> None:
    metrics.gauge(
        "vmmr_disk_free_bytes",
        "Bytes that can still be written to the disk of the index",
        lambda: _disk(folder)[1],
    )
    metrics.gauge("vmmr_disk_bytes", "Size of the disk of the index", lambda: _disk(folder)[0])


def _disk(folder: Path) -> tuple[float, float]:
    """Return the bytes of the folder's disk, and those of them that are free; NaN if nobody can tell."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return math.nan, math.nan
    return usage.total, usage.free


def _limits(settings: SearchConfig) -> Limits:
    return Limits(
        max_queries=settings.max_queries,
        max_k=settings.max_k,
        max_request_bytes=settings.max_request_bytes,
        max_shard_timeout_ms=round(1e3 * settings.shard_timeout_s),
    )


async def _warm_up(view: View, batcher: Batcher[Query, SearchOutcome]) -> None:
    """Do as `warm` does, but all the way of a query, through the batcher."""
    version = view.opened.version
    plan = Plan(version.manifest.k, version.manifest.search, exact=False)
    await batcher.submit([Query(vector, plan) for vector in warm_up_queries(version)])


if __name__ == "__main__":
    main()
