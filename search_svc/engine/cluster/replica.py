"""A replica of a shard: what runs in an actor. It knows nothing of Ray."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.asking import Question
from search_svc.engine.cluster.source import NodeFiles, VersionSource
from search_svc.engine.comparing import rescored
from search_svc.engine.merge import Hits
from search_svc.engine.shard import Shard
from search_svc.engine.threads import use_one_core
from search_svc.index.version import SearchParams, mapped_embeddings
from svckit.artifact import ArtifactError

_INLINE_BYTES = 90_000
"""Ray sends arguments below 100 KB with the call. Larger ones take the way through its object store, which is six times as long."""


@dataclass(frozen=True)
class WireQuestion:
    """A question of one shard without its queries, as it travels."""

    k: int
    params: SearchParams | None
    mask: bytes | None
    """The bits of the mask over the shard."""
    without: NDArray[np.int64]

    @classmethod
    def of(cls, question: Question) -> "WireQuestion":
        mask = None if question.mask is None else np.packbits(question.mask).tobytes()
        return cls(question.k, question.params, mask, question.without)

    def question(self, queries: NDArray[np.float32], rows: int) -> Question:
        """Return the question again. `rows` is the number of rows of the shard."""
        bits = None if self.mask is None else np.unpackbits(np.frombuffer(self.mask, np.uint8), count=rows)
        return Question(queries, self.k, self.params, None if bits is None else bits.astype(np.bool_), self.without)


def inline(queries: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the queries in parts, at least one, that each travel with the call. Their concatenation is the queries."""
    rows = max(1, _INLINE_BYTES // (queries.itemsize * queries.shape[1]))
    return [queries[start : start + rows] for start in range(0, max(1, len(queries)), rows)]


class Replica:
    """Holds one shard, and answers questions of it.

    A shard that cannot be opened is told by `problem`, not raised: Ray would tell an error in a constructor as a traceback.
    """

    def __init__(self, source: VersionSource, number: int) -> None:
        self._problem = ""
        try:
            self._open(source, number)
        except ArtifactError as error:
            self._problem = str(error)

    def problem(self) -> str:
        """Return why the shard is not open; empty if it is, and has been searched once."""
        return self._problem

    def tunable(self) -> frozenset[str]:
        """Return the fields of SearchParams that this kind of index has."""
        return self._shard.tunable

    def answer(self, asked: WireQuestion, *queries: NDArray[np.float32]) -> Hits | None:
        """Return the k best hits of the shard, by gallery row; None if the shard is not open."""
        if self._problem:
            return None
        use_one_core()  # of whichever thread Ray runs this in
        return self._shard.answer(asked.question(np.concatenate(queries), len(self._shard.rows)))

    def rescore(self, ids: NDArray[np.int64], *queries: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the exact scores (Q, n) of gallery rows (Q, n) of this shard, -inf where the row is -1; None as above."""
        if self._problem:
            return None
        candidates = Hits(np.empty(0, np.float32), ids)
        return rescored(candidates, np.concatenate(queries), self._shard.embeddings, self._shard.metric).scores

    def _open(self, source: VersionSource, number: int) -> None:
        use_one_core()
        self._files = NodeFiles(source)
        manifest = source.manifest
        embeddings = mapped_embeddings(self._files.embeddings(), manifest)
        self._shard = Shard.open(self._files.shard(number), manifest.shards[number], manifest, embeddings)
        first = embeddings[self._shard.rows.start][None].astype(np.float32)
        self._shard.answer(Question(first, manifest.k, manifest.search))
