"""The engine whose shards are on the nodes of a Ray cluster, each of them on one node or several."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.asking import Asked, MergingEngine, Question
from search_svc.engine.cluster.connection import Connection
from search_svc.engine.cluster.racing import Racer, Send
from search_svc.engine.cluster.recent import RecentTimes
from search_svc.engine.cluster.replica import WireQuestion, inline
from search_svc.engine.cluster.source import VersionSource
from search_svc.engine.merge import Hits
from search_svc.index.version import IndexVersion, VersionManifest
from svckit.cli import CommandError

_OPENED_S = 10.0
"""Seconds that a replica which is up has for the first question."""


class RayEngine(MergingEngine):
    """An `Engine` whose shards are searched by replicas on the nodes of a cluster. Thread-safe."""

    def __init__(self, connection: Connection, source: VersionSource) -> None:
        """`connection` holds the version of `source`."""
        self._connection = connection
        self._key = source.key
        self._manifest: VersionManifest = source.manifest
        self.defaults = source.manifest.search
        self._racer = Racer(partial(connection.table, source.key))
        self._answer_times, self._rescore_times = RecentTimes(), RecentTimes()
        self._released = False
        self.tunable = self._ask_tunable()

    @classmethod
    def open(cls, version: IndexVersion, connection: Connection, *, storage: str, cache: str) -> Self:
        """Wait until the replicas of the version are up, and have been searched once.

        The nodes read the index data directory at the path or URL `storage`, and keep copies of what comes from a URL in the
        folder `cache`. Raise CommandError, with the reason, if the cluster cannot open the version.
        """
        source = VersionSource.of(version, storage, cache)
        connection.hold(source)
        try:
            return cls(connection, source)
        except BaseException:
            connection.release(source.key)
            raise

    @property
    def shards(self) -> int:
        return len(self._manifest.shards)

    @property
    def batching(self) -> bool:
        """Many queries together cost one way to a replica and back."""
        return True

    @property
    def abandoned(self) -> int:
        """How many questions to replicas took too long, and may still run."""
        return 0 if self._released else self._racer.abandoned

    @property
    def hedged(self) -> int:
        """How many questions were put to a second replica, because the first was late."""
        return self._racer.hedged

    @property
    def closed(self) -> bool:
        return self._racer.closed

    def interrupt(self) -> None:
        """Fail the searches that callers wait for, and any later one, with SHUTTING_DOWN."""
        self._racer.close()

    def close(self) -> None:
        """Let go of the replicas. If no other front end needs them, they end."""
        self.interrupt()
        if not self._released:
            self._released = True
            self._connection.release(self._key)

    def _ask_tunable(self) -> frozenset[str]:
        answers = self._race({0: lambda actor: actor.tunable.remote()}, _OPENED_S, RecentTimes())
        if not answers:
            raise CommandError(f"the replicas of version {self._key} were up, and do not answer")
        tunable: frozenset[str] = answers[0]
        return tunable

    def _ask(self, question: Question, timeout_s: float | None) -> Asked:
        parts = inline(question.queries)
        asked = [WireQuestion.of(question.of(shard.rows)) for shard in self._manifest.shards]
        answers = self._race(
            {number: partial(_answer, each, parts) for number, each in enumerate(asked)}, timeout_s, self._answer_times
        )
        late = self._late(range(len(asked)), answers)
        return Asked([answers[number] for number in sorted(answers)], late, self._down(late))

    def _rescore(self, candidates: Hits, queries: NDArray[np.float32], timeout_s: float | None) -> Asked:
        parts, scores = inline(queries), np.full(candidates.ids.shape, -np.inf, np.float32)
        masks = [_of_shard(shard.rows, candidates.ids) for shard in self._manifest.shards]
        sends = {
            number: partial(_rescore, np.where(mask, candidates.ids, -1), parts)
            for number, mask in enumerate(masks)
            if mask.any()
        }
        answers = self._race(sends, timeout_s, self._rescore_times)
        if late := self._late(sends, answers):
            return Asked([], late, self._down(late))
        for number, answer in answers.items():
            scores[masks[number]] = answer[masks[number]]
        return Asked([Hits(scores, candidates.ids)], [])

    def _race(self, sends: Mapping[int, Send], timeout_s: float | None, recent: RecentTimes) -> dict[int, Any]:
        return self._racer.ask(sends, timeout_s, recent)

    def _down(self, late: Sequence[str]) -> list[str]:
        """Return which of the shards with these files have no replica that is up."""
        return [
            shard.file
            for number, shard in enumerate(self._manifest.shards)
            if shard.file in late and not self._racer.is_up(number)
        ]

    def _late(self, asked: Any, answers: Mapping[int, Any]) -> list[str]:
        return [self._manifest.shards[number].file for number in asked if number not in answers]


def _answer(asked: WireQuestion, parts: list[NDArray[np.float32]], actor: Any) -> Any:
    return actor.answer.remote(asked, *parts)


def _rescore(ids: NDArray[np.int64], parts: list[NDArray[np.float32]], actor: Any) -> Any:
    return actor.rescore.remote(ids, *parts)


def _of_shard(rows: range, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of the gallery rows `ids` are of the shard with these rows."""
    mask: NDArray[np.bool_] = (ids >= rows.start) & (ids < rows.stop) & ((ids - rows.start) % rows.step == 0)
    return mask
