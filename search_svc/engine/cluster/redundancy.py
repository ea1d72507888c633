"""How many replicas are up, of those that should be: told in the log when it changes. It calls nothing of Ray: it reads the keeper's tables."""

import logging
from collections.abc import Iterable, Mapping

from search_svc.engine.cluster.keeper import Placed, Table

_log = logging.getLogger(__name__)


def missing(tables: Iterable[Table]) -> int:
    """Return how many replicas are wanted, and not up."""
    return sum(max(0, table.wanted - len(_up(shard))) for table in tables for shard in table.shards)


def without_replica(tables: Iterable[Table]) -> int:
    """Return how many shards have no replica that is up."""
    return sum(not _up(shard) for table in tables for shard in table.shards)


class Told:
    """Says in the log which replicas and nodes are lost, and when they are back. One thread at a time."""

    def __init__(self) -> None:
        self._degraded: set[tuple[str, int]] = set()
        """Versions, by their keys, and shards in them that have lost a replica and are not whole again."""
        self._nodes: set[str] | None = None

    def tell(self, before: Mapping[str, Table | None], now: Mapping[str, Table | None]) -> None:
        for key, table in now.items():
            if table is not None and (earlier := before.get(key)) is not None:
                self._tell_shards(key, earlier, table)
        self._degraded = {each for each in self._degraded if each[0] in now}
        if tables := [table for table in now.values() if table is not None]:
            self._tell_nodes(set(tables[-1].nodes))

    def _tell_shards(self, key: str, before: Table, now: Table) -> None:
        for number, (earlier, shard) in enumerate(zip(before.shards, now.shards, strict=True)):
            was, up = _up(earlier), _up(shard)
            about = {"version": key, "shard": number, "up": len(up), "wanted": now.wanted}
            if len(up) < min(len(was), now.wanted):
                self._degraded.add((key, number))
                nodes = sorted(each.host for each in was.values() if each.name not in up)
                _log.warning("a replica is lost", extra={**about, "nodes": nodes})
            elif len(up) > len(was) and (key, number) in self._degraded:
                nodes = sorted(each.host for each in up.values() if each.name not in was)
                _log.warning("a replica is back", extra={**about, "nodes": nodes})
                if len(up) >= now.wanted:
                    self._degraded.discard((key, number))

    def _tell_nodes(self, nodes: set[str]) -> None:
        before, self._nodes = nodes if self._nodes is None else self._nodes, nodes
        for node in sorted(before - nodes):
            _log.warning("a node of the cluster is gone", extra={"node": node, "nodes": len(nodes)})
        for node in sorted(nodes - before):
            _log.warning("a node of the cluster is new", extra={"node": node, "nodes": len(nodes)})


def _up(shard: Iterable[Placed]) -> dict[str, Placed]:
    return {replica.name: replica for replica in shard if replica.up}
