"""What shards are asked, and what becomes of their answers, wherever the shards are.

An engine only has to carry questions to its shards and hits back. That N shards answer as one is decided here, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.engine import MOST_CANDIDATES, Answered
from search_svc.engine.merge import NO_IDS, Hits, merge
from search_svc.index.version import SearchParams
from svckit.errors import Reason, ServiceError
from svckit.gate import shutting_down


@dataclass(frozen=True)
class Question:
    """The queries of one search, and what is searched for. Of a gallery, or, made by `of`, of one shard."""

    queries: NDArray[np.float32]
    """(Q, dimension)."""
    k: int
    params: SearchParams | None
    """None to compare with every embedding instead of asking the index."""
    mask: NDArray[np.bool_] | None = None
    """Which rows to search; None for all."""
    without: NDArray[np.int64] = field(default_factory=lambda: NO_IDS)
    """Rows, ascending and each once, that must not be among the hits."""

    def of(self, rows: range) -> "Question":
        """Return the question for the shard with these gallery rows: its mask and its rows are counted within the shard."""
        mask = None if self.mask is None else self.mask[rows.start : rows.stop : rows.step]
        low, high = np.searchsorted(self.without, (rows.start, rows.stop))
        places, rest = np.divmod(self.without[low:high] - rows.start, rows.step)
        return replace(self, mask=mask, without=places[rest == 0])


@dataclass(frozen=True)
class Asked:
    """What came back from shards in time."""

    hits: Sequence[Hits]
    late: Sequence[str]
    """The files of the shards that have not answered."""
    down: Sequence[str] = ()
    """Of them, those that nobody could be asked for: no replica is up."""


class MergingEngine(ABC):
    """An `Engine` that asks every shard the same question, and merges the hits. Thread-safe if its methods are."""

    defaults: SearchParams
    """The parameters of a search that names none."""

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        params: SearchParams | None = None,
        rows: NDArray[np.bool_] | None = None,
        without: NDArray[np.int64] = NO_IDS,
        exact: bool = False,
        timeout_s: float | None = None,
        allow_partial: bool = False,
    ) -> Answered:
        """Search as `Engine.search` says."""
        if exact:
            question = Question(queries, k, None, rows, without)
            return self._merged(question, timeout_s, allow_partial=allow_partial)
        params = params or self.defaults
        candidates = min(k * (params.rerank or 1), max(k, MOST_CANDIDATES))
        question = Question(queries, candidates, params, rows, without)
        answered = self._merged(question, timeout_s, allow_partial=allow_partial)
        if params.rerank is None:
            return answered
        return Answered(merge([self._reranked(answered.hits, queries, timeout_s)], k), answered.shards)

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the engine was interrupted or closed, so that nothing answers any more."""

    @abstractmethod
    def _ask(self, question: Question, timeout_s: float | None) -> Asked:
        """Ask all shards the question, which is of the whole gallery, and wait for at most `timeout_s`."""

    @abstractmethod
    def _rescore(self, candidates: Hits, queries: NDArray[np.float32], timeout_s: float | None) -> Asked:
        """Return the candidates with exact scores, as the only hits, if that takes no longer than `timeout_s`."""

    def _merged(self, question: Question, timeout_s: float | None, *, allow_partial: bool) -> Answered:
        asked = self._ask(question, timeout_s)
        if asked.late and self.closed:
            raise shutting_down()
        if asked.late and not (asked.hits and allow_partial):
            remedy = "allow_partial takes the answers of the other shards" if asked.hits else "no shard has answered"
            raise _timed_out(asked, remedy)
        return Answered(merge(asked.hits, question.k), len(asked.hits))

    def _reranked(self, candidates: Hits, queries: NDArray[np.float32], timeout_s: float | None) -> Hits:
        """Return the candidates with exact scores. This has `timeout_s` anew: the shards may have used up theirs."""
        asked = self._rescore(candidates, queries, timeout_s)
        if asked.late and self.closed:
            raise shutting_down()
        if asked.late:
            raise _timed_out(asked, "a rerank of fewer candidates reads less of it")
        [hits] = asked.hits
        return hits


def _timed_out(asked: Asked, remedy: str) -> ServiceError:
    slow = [file for file in asked.late if file not in asked.down]
    causes = [f"no replica is up of {', '.join(asked.down)}"] if asked.down else []
    causes += [f"not answered in time by {', '.join(slow)}"] if slow else []
    text = "; ".join((*causes, remedy))
    return ServiceError(Reason.SHARD_TIMEOUT, text, metadata={"shards": ",".join(asked.late)})
