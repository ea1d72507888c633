"""The keeper: an actor that has the replicas that front ends need placed, watched, and ended when nobody needs them.

Front ends renew what they need every second. Whoever has not renewed it for a while has gone, orderly or not: so nothing is left
behind for ever. Ray restarts a replica whose process dies, on the same node; the keeper puts another elsewhere if the node dies,
or if the replica does not come to open its shard, and ends one that hangs later, for Ray to restart. Queries do not pass the keeper,
and do not need it.
"""

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search_svc.engine.cluster.leases import Leases
from search_svc.engine.cluster.placement import Place, missing, surplus
from search_svc.engine.cluster.replica import Replica
from search_svc.engine.cluster.scale import Scale
from search_svc.engine.cluster.source import VersionSource

KEEPER = "keeper"
LEASE_S = 30.0
"""Seconds after which a front end that has not renewed is gone."""
_STEP_S = 0.2
_PING_S = 1.0
_HUNG_S = 30.0
"""Seconds without an answer after which a replica that was up is ended. Its pings have a thread of their own."""
_OPENING_S = 60.0
"""Seconds that a replica has to open its shard, its process to start included, beside the time in which its node reads the version."""
_SLOWEST = 20e6
"""Bytes a second of the slowest storage that is waited for."""
_BARRED_S = 5.0
"""Seconds for which no replica is placed where one has just failed."""

_TAKEN_S = 8.0
"""Seconds in which a front end is to take over the number that an operator orders; each renews every second."""

_WATCH = "watch"
"""The threads of a replica that answer the keeper, while others search."""

_log = logging.getLogger(__name__)
_ray: Any = ray  # its type hints do not know all options


@dataclass(frozen=True)
class Placed:
    """A replica, for front ends."""

    name: str
    node: str
    host: str
    """What the node's machine is called, and the beginning of the node's id."""
    actor: Any
    up: bool
    """Whether it has opened its shard, and answered since."""


@dataclass(frozen=True)
class Table:
    """The replicas of a version, at one moment."""

    shards: tuple[tuple[Placed, ...], ...]
    wanted: int
    """How many replicas each shard should have."""
    settled: bool
    """Whether every replica is up that has a node to be on."""
    problem: str
    """Why a replica could not be opened or placed; empty if no reason is known, or all are up."""
    nodes: tuple[str, ...]
    """The nodes that may have replicas, each as `Placed.host` has it."""


@dataclass
class _Watched:
    """A replica as the keeper sees it."""

    actor: Any
    down_since: float
    """When it was started, or went down last."""
    up: bool = False
    ping: Any = None
    asked: float = 0.0
    """When the last ping was sent."""

    def goes_down(self) -> None:
        if self.up:
            self.up, self.down_since = False, time.monotonic()


def opening_s(source: VersionSource) -> float:
    """Return the seconds within which a replica opens its shard: in them a node can read, or copy, all files of the version."""
    return _OPENING_S + sum(source.sizes.values()) / _SLOWEST


class Keeper:
    """See the module. One thread of its own does the work, every moment; calls only leave or read what is needed."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._fronts = Leases(lease_s)
        self._tables: dict[str, Table] = {}
        self._scale: Scale | None = None
        """How many replicas each shard has; None until the first front end has said it."""
        self._taken = 0.0
        """When the last order was given that a front end has taken over."""
        self._renewed = threading.Condition()  # guards these two
        self._watched: dict[Place, _Watched] = {}
        self._barred: dict[Place, float] = {}
        self._problems: dict[Place, str] = {}
        self._hosts: dict[str, str] = {}
        """What each node is called that is there, or has been."""
        self._idle_since = time.monotonic()
        self._settling = 0.0
        """Until then, the front ends of a keeper whose process died may not have come back: their replicas stay."""
        self._handle = ray.get_runtime_context().current_actor
        threading.Thread(target=self._work, name="keeper", daemon=True).start()

    def renew(self, front: str, sources: Mapping[str, VersionSource], scale: Scale) -> tuple[Scale, dict[str, Table]]:
        """Keep these versions up for a front end, and no others: not even one if it goes.

        `scale` is the number of replicas that it was told last, or wishes, if it was told none. Return the one that holds for all
        front ends, and the tables that there are yet.
        """
        self._fronts.renew(front, sources)
        with self._renewed:
            if sources and (self._scale is None or scale.outranks(self._scale)):
                self._scale = replace(scale, begun=min(scale.begun, time.time()))
            self._taken = max(self._taken, scale.ordered)
            self._renewed.notify_all()
            held = self._scale or scale
        return held, {key: self._tables[key] for key in sources if key in self._tables}

    def scale(self, replicas: int) -> bool:
        """Give every shard so many replicas. Return whether a front end has taken the number over, so that it outlives this process."""
        with self._renewed:
            if not self._fronts:
                return False
            now = time.time()
            self._scale = Scale(replicas, begun=now, ordered=now)
            return self._renewed.wait_for(lambda: self._taken >= now, _TAKEN_S)

    def status(self) -> dict[str, Any]:
        """Return what there is, as JSON has it."""
        return {
            "replicas": self._replicas,
            "front_ends": [{"name": front, "expires_in_s": left_s} for front, left_s in self._fronts.left_s().items()],
            "nodes": [
                {
                    "host": node["NodeManagerHostname"],
                    "address": node["NodeManagerAddress"],
                    "cores": node["Resources"].get("CPU", 0.0),
                    "id": node["NodeID"],
                }
                for node in _alive()
            ],
            "versions": {key: _described(table) for key, table in self._tables.items()},
        }

    @property
    def _replicas(self) -> int:
        return self._scale.replicas if self._scale else 0

    def _work(self) -> None:
        step = self._adopt
        while True:
            try:
                step()
                step = self._step
            except Exception:  # noqa: BLE001 (whatever it is, the next step may go well)
                _log.exception("a step failed")
            time.sleep(_STEP_S)

    def _adopt(self) -> None:
        """Take over the replicas of a keeper whose process died."""
        for name in set(list_named_actors()) - {KEEPER}:
            with suppress(ValueError):  # it has just ended
                self._watched[_place(name)] = _Watched(ray.get_actor(name), time.monotonic(), up=True)
        self._settling = time.monotonic() + self._lease_s if self._watched else 0.0

    def _step(self) -> None:
        alive = _alive()
        nodes = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in alive}  # and its cores
        self._hosts |= {node["NodeID"]: _host(node) for node in alive}
        sources = self._fronts.needed()
        self._look_at_pings(nodes, sources)
        wanted = {
            (key, number): self._replicas
            for key, source in sources.items()
            for number in range(len(source.manifest.shards))
        }
        if time.monotonic() > self._settling:
            for place in list(surplus(wanted, {place: each.up for place, each in self._watched.items()})):
                self._end(place)
        self._barred = {place: until for place, until in self._barred.items() if until > time.monotonic()}
        for place in list(missing(wanted, self._watched, nodes, self._barred)):
            self._start(sources[place[0][0]], place)
        self._problems = {
            place: problem
            if place[1] in nodes
            else f"node {self._hosts.get(place[1], place[1][:12])}: the node is gone"
            for place, problem in self._problems.items()
            if place[0] in wanted
        }
        self._tables = {key: self._table(source, nodes) for key, source in sources.items()}
        # What is settled has another replica in the place of the one that failed, and nobody tries that one again.
        settled = {key for key, table in self._tables.items() if table.settled}
        self._problems = {place: text for place, text in self._problems.items() if place[0][0] not in settled}
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._fronts:
            self._idle_since = time.monotonic()
        elif not self._watched:
            self._scale = None
            if time.monotonic() > self._idle_since + self._lease_s:
                ray.kill(self._handle)

    def _look_at_pings(self, nodes: Mapping[str, float], sources: Mapping[str, VersionSource]) -> None:
        pings = {each.ping: place for place, each in self._watched.items() if each.ping is not None}
        answered, _ = ray.wait(list(pings), num_returns=len(pings), timeout=0) if pings else ((), ())
        for ping in answered:
            self._answered(pings[ping])
        now = time.monotonic()
        for place, each in list(self._watched.items()):
            if place[1] not in nodes:
                self._end(place)
            elif not each.up and (source := sources.get(place[0][0])) and now > each.down_since + opening_s(source):
                file = source.manifest.shards[place[0][1]].file
                self._fail(place, f"{file} is not open after {opening_s(source):.0f} s, and was given up there")
            elif each.ping is None and now > each.asked + (_PING_S if each.up else 0):
                each.ping, each.asked = each.actor.problem.options(concurrency_group=_WATCH).remote(), now
            elif each.ping is not None and each.up and now > each.asked + _HUNG_S:
                _log.warning("a replica hangs, and is restarted: %s", _name(place))
                ray.kill(each.actor, no_restart=False)
                each.goes_down()

    def _answered(self, place: Place) -> None:
        each = self._watched[place]
        ping, each.ping = each.ping, None
        try:
            problem = ray.get(ping)
        except ActorUnavailableError:
            each.goes_down()  # Ray restarts it
        except RayError as error:
            self._fail(place, str(error).strip().splitlines()[-1])
        else:
            if problem:
                self._fail(place, problem)
            else:
                each.up = True
                self._problems.pop(place, None)

    def _fail(self, place: Place, problem: str) -> None:
        self._problems[place] = f"node {self._hosts.get(place[1], place[1][:12])}: {problem}"
        self._barred[place] = time.monotonic() + _BARRED_S
        self._end(place)

    def _start(self, source: VersionSource, place: Place) -> None:
        (_, number), node = place
        # No cores are asked for: while versions are exchanged there are twice as many replicas, half of them idle.
        options = {"num_cpus": 0, "max_restarts": -1, "lifetime": "detached", "get_if_exists": True}
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        replica = _ray.remote(concurrency_groups={_WATCH: 1})(Replica)
        actor = replica.options(name=_name(place), scheduling_strategy=here, **options).remote(source, number)
        self._watched[place] = _Watched(actor, time.monotonic())

    def _end(self, place: Place) -> None:
        ray.kill(self._watched[place].actor)
        del self._watched[place]  # not before: what is not watched would stay for ever, were it still there

    def _table(self, source: VersionSource, nodes: Mapping[str, float]) -> Table:
        shards = tuple(self._placed((source.key, number)) for number in range(len(source.manifest.shards)))
        wanted = min(self._replicas, sum(cores > 0 for cores in nodes.values()))
        full = all(len(each) >= wanted for each in shards)
        settled = wanted > 0 and full and all(replica.up for each in shards for replica in each)
        problem = "" if wanted else "no node of the cluster has a core for replicas"
        if not settled:
            problem = problem or next((text for place, text in self._problems.items() if place[0][0] == source.key), "")
        usable = tuple(self._hosts.get(node, node[:12]) for node, cores in nodes.items() if cores > 0)
        return Table(shards, self._replicas, settled, problem, usable)

    def _placed(self, shard: tuple[str, int]) -> tuple[Placed, ...]:
        here = ((place, each) for place, each in self._watched.items() if place[0] == shard)
        return tuple(
            Placed(_name(place), place[1], self._hosts.get(place[1], place[1][:12]), each.actor, each.up)
            for place, each in here
        )


def _alive() -> list[dict[str, Any]]:
    return [node for node in _ray.nodes() if node["Alive"]]


def _host(node: Mapping[str, Any]) -> str:
    """Return the name of a node's machine, and the beginning of its id."""
    return f"{node['NodeManagerHostname']} ({node['NodeID'][:12]})"


def _name(place: Place) -> str:
    (key, number), node = place
    return f"{key}/{number}/{node}"


def _place(name: str) -> Place:
    key, number, node = name.split("/")
    return (key, int(number)), node


def _described(table: Table) -> dict[str, Any]:
    return {
        "settled": table.settled,
        "short_of": max((table.wanted - sum(each.up for each in shard) for shard in table.shards), default=0),
        "problem": table.problem,
        "shards": [
            [{"node": each.host, "state": "up" if each.up else "opening"} for each in shard] for shard in table.shards
        ],
    }
