"""The settings of `vmmr-search serve`."""

import re
from dataclasses import dataclass
from pathlib import Path

from search_svc.engine.gpu import DEVICES
from search_svc.index.backup_place import Place
from search_svc.index.retention import KEEP_VERSIONS
from svckit import ray_cluster, shipped
from svckit.cli import CommandError
from svckit.config import ConfigError, found, option
from svckit.server import ServerConfig

PREFIX = "VMMR_SEARCH"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
ENGINES = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(ServerConfig):
    port: int = option(50052, minimum=0, maximum=65535, help="port to listen on; 0 takes any free one")
    index: Path = found(
        shipped.gallery, help="index data directory; its current version is served", shown="the gallery that ships"
    )
    device: str = option("cpu", choices=DEVICES, help="what searches; cuda is every GPU there is")
    engine: str = option("local", choices=ENGINES, help="where the shards are: in this process, or on a Ray cluster")
    ray_address: str | None = option(None, help="HOST:PORT of the Ray cluster, for --engine ray")
    replicas: int = option(
        1,
        minimum=1,
        maximum=100,
        needs="ray_address",
        help="replicas of each shard, on as many nodes of the Ray cluster",
    )
    ray_storage: str | None = option(
        None,
        needs="ray_address",
        help="path or URL at which the nodes read the index data directory; the path of --index by default",
    )
    ray_cache: str = option(
        "/tmp/vmmr-search",  # noqa: S108 (copies are in a folder in it that is its own, and of no other user)
        needs="ray_address",
        help="folder of each node for copies of what is read from a URL",
    )
    max_queries: int = option(256, minimum=1, help="most queries in one call")
    max_k: int = option(1000, minimum=1, help="most neighbours of one query")
    max_batch: int = option(
        64,
        minimum=1,
        help="most queries, of whatever calls, that are searched together; fewer while several callers come",
    )
    max_queue: int = option(1024, minimum=1, help="most queries that wait to be searched; more are refused")
    shard_timeout_s: float = option(
        10.0, minimum=0.001, maximum=86400, help="seconds that the shards have for a search; a call may give them less"
    )
    verify: bool = option(True, help="read every byte of the index before serving it, and refuse what is damaged")
    read_only: bool = option(
        False, help="refuse writes to the gallery; others may write to the index, and are followed"
    )
    accept_loss: bool = option(
        False,
        help="start even if acknowledged writes are missing at the end of the journal, and say so from then on; they are lost",
    )
    compact_at: int = option(
        10_000,
        minimum=0,
        not_with="read_only",
        help="journal entries beyond the version at which the next is built by itself; 0 for never",
    )
    keep_versions: int = option(
        KEEP_VERSIONS,
        minimum=1,
        not_with="read_only",
        help="versions of the index to keep; older ones that nobody uses are removed",
    )
    backup_to: str | None = option(
        None, help="folder to back the index up to while it is served, a path or a URL that fsspec can write to"
    )
    backup_every: str = option(
        "15m", needs="backup_to", help="time between two backups: a number of seconds, or with s, m, h or d behind it"
    )
    backup_keep: int = option(96, minimum=1, needs="backup_to", help="backups to keep; older ones are removed")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backup_to is not None:
            _check_place(self.backup_to)
        if self.backup_every_s < 1:
            raise ConfigError(f"--backup-every must be >= 1 s, got {self.backup_every}")
        if (self.engine == "ray") != (self.ray_address is not None):
            raise ConfigError("--engine ray and --ray-address go together, only one is given")
        if self.ray_address is not None:
            _check_ray_address(self.ray_address)
        if self.engine == "ray" and self.device != "cpu":
            raise ConfigError("--engine ray searches on CPUs: --device must be cpu")
        if self.max_queue < self.max_queries:
            raise ConfigError(
                f"--max-queue must be >= --max-queries, got {self.max_queue} and {self.max_queries}: "
                "the largest call would never fit"
            )

    @property
    def backup_every_s(self) -> float:
        found = _DURATION.fullmatch(self.backup_every)
        if found is None:
            raise ConfigError(f"--backup-every must be a time such as 90s, 15m, 6h or 1d, got {self.backup_every!r}")
        return float(found[1]) * _SECONDS[found[2]]


def _check_place(url: str) -> None:
    try:
        Place.at(url)
    except CommandError as error:
        raise ConfigError(f"--backup-to: {error}") from error


def _check_ray_address(address: str) -> None:
    try:
        ray_cluster.check_form(address, "--ray-address")
    except CommandError as error:
        raise ConfigError(str(error)) from error
