"""Asks one replica of each shard, and another one where the first is late or fails: the first answer counts."""

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayError, RayTaskError

from search_svc.engine.cluster.keeper import Placed, Table
from search_svc.engine.cluster.recent import RecentTimes
from search_svc.engine.shard_thread import MOST_ABANDONED

Send = Callable[[Any], Any]
"""Calls an actor, and returns the reference of its answer, which is None where the replica cannot answer.

The answer is awaited as a future: `ray.wait` asks the node's own daemon, and was seen to take seconds while that was busy."""

_LOOK_S = 0.1
"""How often a search that waits looks whether the engine was closed."""
_DOWN_S = 3.0
"""Seconds for which a replica that failed is not asked. By then the keeper has noticed, and told."""


@dataclass(frozen=True)
class _Call:
    shard: int
    replica: str
    sent: float


@dataclass
class _Race:
    """One search, on its way."""

    sends: Mapping[int, Send]
    turn: int
    """Number of the search. Searches take the replicas of a shard in turn."""
    tried: set[str] = field(default_factory=set)
    running: dict[Future[Any], _Call] = field(default_factory=dict)
    answers: dict[int, Any] = field(default_factory=dict)

    @property
    def awaited(self) -> list[Future[Any]]:
        """The calls of the shards that have not answered."""
        return [future for future, call in self.running.items() if call.shard not in self.answers]


class Racer:
    """Knows the replicas of a version, as far as asking goes. Thread-safe."""

    def __init__(self, table: Callable[[], Table]) -> None:
        """`table` returns where the replicas are; it is called for every question."""
        self._closed = False
        self.hedged = 0
        """How many questions were put to a second replica because the first was late."""
        self._table = table
        self._abandoned: dict[Future[Any], str] = {}
        self._busy: Counter[str] = Counter()
        self._down: dict[str, float] = {}
        self._turns = itertools.count()
        self._lock = threading.Lock()  # guards all of these, and `recent`

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End searches that wait, and ask no replica any more."""
        with self._lock:  # once it is set, nobody looks for replicas
            self._closed = True

    @property
    def abandoned(self) -> int:
        """How many questions nobody waits for any more, and are not known to have ended."""
        return len(self._abandoned)

    def is_up(self, shard: int) -> bool:
        """Return whether the shard has a replica that is up, and has not just failed; False once closed."""
        with self._lock:
            if self._closed:
                return False
            now = time.monotonic()
            return any(each.up and self._down.get(each.name, 0) <= now for each in self._table().shards[shard])

    def ask(self, sends: Mapping[int, Send], timeout_s: float | None, recent: RecentTimes) -> dict[int, Any]:
        """Return the answers by shard; those of shards that have none in time are missing.

        A shard all of whose replicas are down, or do not answer earlier questions, is not waited for. `recent` says after what
        time a second replica is asked, and learns how long it took.
        """
        self._tidy()
        race = _Race(sends, next(self._turns))
        try:
            self._run(race, timeout_s, recent)
        finally:
            self._abandon(race)
        return race.answers

    def _run(self, race: _Race, timeout_s: float | None, recent: RecentTimes) -> None:
        for shard in race.sends:
            self._send(race, shard)
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            second = time.monotonic() + recent.p95()
        while (awaited := race.awaited) and not self.closed and (now := time.monotonic()) < end:
            if now >= second:
                second = math.inf
                self._ask_again(race)
            else:
                self._wait(race, awaited, min(end, second, now + _LOOK_S) - now, recent)
        # What has come by now counts, however late this thread is to look.
        self._take(race, [each for each in race.awaited if each.done() and not _failed(each)], recent)

    def _wait(self, race: _Race, awaited: list[Future[Any]], timeout_s: float, recent: RecentTimes) -> None:
        self._take(race, wait(awaited, timeout_s, FIRST_COMPLETED).done, recent)

    def _take(self, race: _Race, ended: Iterable[Future[Any]], recent: RecentTimes) -> None:
        """Keep the answers of calls that have ended. Ask another replica where one has failed."""
        for future in ended:
            failed = _failed(future)
            answer = (
                None if failed else future.result()
            )  # if it raises, the call is abandoned like those that still run
            call = race.running.pop(future)
            with self._lock:
                self._returned(call.replica, failed=failed)
                if not failed:
                    recent.add(time.monotonic() - call.sent)
            if failed:
                self._send(race, call.shard)
            else:
                race.answers[call.shard] = answer

    def _ask_again(self, race: _Race) -> None:
        for shard in {race.running[future].shard for future in race.awaited}:
            self.hedged += self._send(race, shard)

    def _send(self, race: _Race, shard: int) -> bool:
        """Ask a replica of the shard that was not asked yet. Return False if there is none that might answer."""
        with self._lock:
            replica = None if self._closed else self._choose(shard, race)
            if replica is None:
                return False
            self._busy[replica.name] += 1
        race.tried.add(replica.name)
        try:
            future = race.sends[shard](replica.actor).future()
        except BaseException:  # Ray's store, which large masks pass, may be full
            with self._lock:
                self._returned(replica.name, failed=False)
            raise
        race.running[future] = _Call(shard, replica.name, time.monotonic())
        return True

    def _choose(self, shard: int, race: _Race) -> Placed | None:
        """Return the replica with the fewest questions; in turn, if they have as many."""
        now, stuck = time.monotonic(), Counter(self._abandoned.values())
        free = [
            replica
            for replica in self._table().shards[shard]
            if replica.up
            and replica.name not in race.tried
            and self._down.get(replica.name, 0) <= now
            and stuck[replica.name] < MOST_ABANDONED
        ]
        first = race.turn % max(1, len(free))
        turned = free[first:] + free[:first]
        return min(turned, key=lambda replica: self._busy[replica.name], default=None)

    def _abandon(self, race: _Race) -> None:
        with self._lock:
            self._abandoned.update((future, call.replica) for future, call in race.running.items())

    def _tidy(self) -> None:
        """Forget the questions that were abandoned and have ended."""
        with self._lock:
            for future in [each for each in self._abandoned if each.done()]:
                self._returned(self._abandoned.pop(future), failed=_failed(future))

    def _returned(self, replica: str, *, failed: bool) -> None:
        self._busy[replica] -= 1
        if failed:
            self._down[replica] = time.monotonic() + _DOWN_S


def _failed(future: Future[Any]) -> bool:
    """Return whether the replica that was asked, or its node, is no good: not so if its code has raised something."""
    error = future.exception()
    if error is None:
        return future.result() is None
    return isinstance(error, RayError) and not isinstance(error, RayTaskError)
