"""A process's connection to a Ray cluster, as a front end: what it needs there, it renews until it needs it no more."""

import atexit
import importlib.metadata
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError

from search_svc.engine.cluster.keeper import KEEPER, Keeper, Table
from search_svc.engine.cluster.redundancy import Told, missing, without_replica
from search_svc.engine.cluster.scale import Scale
from search_svc.engine.cluster.source import VersionSource
from search_svc.engine.cluster.watch import ClusterWatch
from svckit import ray_cluster
from svckit.cli import CommandError
from svckit.gate import shutting_down

_RENEW_S = 1.0
_OPENING_S = 0.1
_CALL_S = 10.0
"""Seconds that the keeper has for a call: it may just be restarted, or the cluster's head be away."""
_PATIENCE_S = 60.0
"""Seconds that replicas beyond the first of a shard have to come up before a version is searched without them."""
_NO_PLACE_S = 10.0
"""Seconds after which a version that cannot be opened is given up, unless it took longer to see that."""

_log = logging.getLogger(__name__)


def connect(address: str) -> None:
    """Connect this process to the cluster. Raise CommandError if there is none at the address."""
    # Replicas are shared by programs of one version: others might not understand them, or answer otherwise.
    version = importlib.metadata.version("vmmr-services")
    ray_cluster.connect(address, "--ray-address", namespace=f"vmmr-search {version}")


def keeper() -> Any:
    """Return the cluster's keeper, which is started if there is none."""
    # On the head node: if that goes, so does the cluster.
    head = {"node:__internal_head__": 0.001}
    options: dict[str, Any] = {"num_cpus": 0, "resources": head, "max_restarts": -1, "max_concurrency": 8}
    actor = ray.remote(Keeper)
    return actor.options(name=KEEPER, get_if_exists=True, lifetime="detached", **options).remote()


class Connection:
    """What one process needs of the cluster: versions, each with its replicas. Thread-safe."""

    def __init__(self, address: str, replicas: int) -> None:
        """Connect. Each shard has so many replicas, unless other front ends, or an operator, have said otherwise before."""
        connect(address)
        _log.info("connected to a Ray cluster", extra={"engine": "ray", "cluster": address, "replicas": replicas})
        self.watch = ClusterWatch(address)
        self._wished = replicas
        self._told = Told()
        self._silent = ""
        self._name = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._scale = Scale(replicas)
        self._sources: dict[str, list[VersionSource]] = {}
        self._tables: dict[str, Table | None] = {}
        self._opened: set[str] = set()
        """The versions that were waited for, by their keys."""
        self._keeper: Any = None
        self._lock = threading.Lock()
        """Guards the versions and tables, and is held for a call of the keeper: its answers are taken in their order."""
        self._left = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="renewing", daemon=True)
        self._thread.start()
        self.watch.start()

    @property
    def missing(self) -> int:
        """How many replicas are wanted, and not up, of all versions that are open."""
        return missing(self._known())

    @property
    def without_replica(self) -> int:
        """How many shards have no replica that is up."""
        return without_replica(self._known())

    @property
    def problem(self) -> str:
        """What is wrong with the cluster, as far as answers suffer, or will; empty if nothing is known to be."""
        shards = self.without_replica
        return "; ".join(filter(None, (self.watch.problem, f"no replica is up of {shards} shards" if shards else "")))

    def hold(self, source: VersionSource) -> None:
        """Wait until the version's replicas are up, and keep them so until `release`. Raise CommandError if they cannot be."""
        with self._lock:
            self._sources.setdefault(source.key, []).append(source)
        try:
            self._wait_for(source.key)
        except BaseException:
            self.release(source.key)
            raise
        with self._lock:
            if source.key in self._sources:  # `close` may have released everything
                self._opened.add(source.key)

    def table(self, key: str) -> Table:
        """Return the replicas of a version that is held, as of the last time that the keeper told."""
        table = self._tables[key]
        assert table is not None, "hold has waited for it"
        return table

    def release(self, key: str) -> None:
        with self._lock:
            if key not in self._sources:  # everything was released by `close`
                return
            self._sources[key].pop()
            if not self._sources[key]:
                del self._sources[key]
                self._opened.discard(key)
        if not self.watch.problem:
            self._renew_if_possible()

    def close(self, *, exit_code: int = 0) -> None:
        """Release everything, and leave the cluster. If it is lost, the process ends with `exit_code` as soon as the interpreter ends."""
        self._stopped.set()
        self.watch.stop()
        if not self.watch.problem:
            self.watch.look()
        if not self.watch.problem:
            self._thread.join()
            with self._lock:
                self._sources.clear()
            self._renew_if_possible()
        if self.watch.problem:
            # Ray's own farewell, at the interpreter's end, waits for the GCS, and ends the process in its way if that does not come.
            atexit.register(os._exit, exit_code)
            return
        with self._lock:
            self._left = True
            ray.shutdown()

    def _wait_for(self, key: str) -> None:
        begun, told_after = time.monotonic(), math.inf
        table, said = None, ""
        while not (table and table.settled):
            if self._stopped.is_set():
                raise shutting_down()
            if self.watch.given_up:
                raise CommandError(self.watch.given_up)
            silent = self._renew_if_possible()
            table, waited = self._tables.get(key), time.monotonic() - begun
            said = table.problem if table else ""
            told_after = min(told_after, waited if said else math.inf)
            if table and all(any(each.up for each in shard) for shard in table.shards):
                if waited > _PATIENCE_S:
                    _log.warning("not all replicas are up", extra={"version": key, "reason": said})
                    return
            elif said and waited > max(_NO_PLACE_S, 2 * told_after):  # whoever tries next has as long
                raise CommandError(f"the cluster cannot open version {key}: {said}")
            if silent and waited > _PATIENCE_S:
                raise CommandError(
                    f"the keeper of the cluster does not answer, so version {key} is not opened: {silent}"
                )
            self._stopped.wait(_OPENING_S)

    def _known(self) -> list[Table]:
        """Return the tables of the versions that are open, of which all replicas were up, or as many as could be."""
        return [table for key, table in list(self._tables.items()) if table is not None and key in self._opened]

    def _work(self) -> None:
        while not self._stopped.wait(_RENEW_S):
            if self._sources:
                self._renew_if_possible()

    def _renew_if_possible(self) -> str:
        """Return why the keeper does not answer; empty if it does."""
        try:
            self._renew()
        except Exception as error:  # noqa: BLE001 (whatever it is, the next time may go well; a thread that ended would let the leases end)
            # Searches go on with the replicas that are known.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            if not self._silent:
                _log.warning("the keeper of the cluster does not answer", extra={"reason": reason})
            self._silent = reason
            return reason
        if self._silent:
            _log.warning("the keeper of the cluster answers again", extra={"reason": self._silent})
        self._silent = ""
        return ""

    def _renew(self) -> None:
        if self._keeper is None and not self.watch.problem:
            self.watch.look()  # not with the lock held, for which others wait
        with self._lock:
            if self._left:
                return  # a call would have Ray start a cluster of its own
            sources = {key: each[-1] for key, each in self._sources.items()}
            if self._keeper is None and self.watch.problem:
                raise CommandError(self.watch.problem)  # Ray would wait for the GCS, however long that takes
            try:
                self._keeper = self._keeper or keeper()
                asked = self._keeper.renew.remote(self._name, sources, self._scale)
                held, tables = ray.get(asked, timeout=_CALL_S)
            except BaseException:
                self._keeper = None
                raise
            self._take(held)
            # A keeper that has just been restarted has no tables yet; the replicas are where they were.
            before, self._tables = self._tables, {key: tables.get(key) or self._tables.get(key) for key in sources}
            self._told.tell(before, self._tables)

    def _take(self, held: Scale) -> None:
        """Take over the number of replicas that holds, and say so if it is another than before."""
        if held.replicas != self._scale.replicas:
            numbers = {"replicas": held.replicas, "before": self._scale.replicas, "of_this_server": self._wished}
            _log.warning("the cluster has another number of replicas", extra=numbers)
        self._scale = held


def ask_keeper(address: str, send: Callable[[Any], Any]) -> Any:
    """Connect, and return the keeper's answer to a call; None if no front end has started one. Raise CommandError if it does not answer."""
    connect(address)
    try:
        return ray.get(send(ray.get_actor(KEEPER)), timeout=_CALL_S)
    except ValueError:
        return None
    except RayError as error:
        raise CommandError(f"the keeper of the cluster at {address} does not answer: {error}") from error
    finally:
        ray.shutdown()
