"""What searches the shards of an index version, wherever they are."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.merge import NONE, Hits
from search_svc.index.version import SearchParams

MOST_CANDIDATES = 4096
"""Of a query that is reranked: a batch of 64 that have as many is held up for a second. Fewer only than its neighbours.

A limit of each query, not of a call: what a query finds must not depend on how many others are asked with it."""


@dataclass(frozen=True)
class Answered:
    hits: Hits
    shards: int
    """Shards whose photos were searched; the hits of the others are missing."""


class Engine(Protocol):
    """Answers as one index over all shards would. Thread-safe."""

    @property
    def shards(self) -> int:
        """Shards there are."""

    @property
    def tunable(self) -> frozenset[str]:
        """The fields of SearchParams that this kind of index has."""

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        params: SearchParams | None = None,
        rows: NDArray[np.bool_] | None = None,
        without: NDArray[np.int64] = NONE,
        exact: bool = False,
        timeout_s: float | None = None,
        allow_partial: bool = False,
    ) -> Answered:
        """The k best hits of `(Q, dimension)` queries, among the gallery's `rows` (a mask over all of them) or all.

        Nor is any of them one of `without`: ids, ascending and each once. For photos that were removed, which may be any number:
        hits are fetched as if they were there, and dropped, and where that leaves too few, more are fetched. A mask over a
        million rows, and a Flat index that cannot use BLAS then (seven times slower), would be paid by every call.

        `exact` compares with every embedding instead of asking the index. Shards that have not answered within
        `timeout_s` are left out if `allow_partial`, and at least one has. Otherwise raises ServiceError, SHARD_TIMEOUT;
        so it does if reranking then takes as long again. SHUTTING_DOWN if the engine is being closed.
        """

    def close(self) -> None:
        """Lets go of the shards."""
