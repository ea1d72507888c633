"""The interface of engines, which search the shards of an index version wherever these are."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.merge import NO_IDS, Hits
from search_svc.index.version import SearchParams

MOST_CANDIDATES = 4096
"""Candidates that a query may have reranked; if it asks for more neighbours than this, they are all the candidates.

With so many, a batch of 64 queries takes a second. It is a limit of each query, not of a call: what a query finds must not
depend on how many others are asked with it."""


@dataclass(frozen=True)
class Answered:
    hits: Hits
    shards: int
    """How many shards were searched in time. The hits of the others are missing."""


class Engine(Protocol):
    """Searches all shards as if they were one index. Thread-safe."""

    @property
    def shards(self) -> int:
        """How many shards there are."""

    @property
    def tunable(self) -> frozenset[str]:
        """The fields of SearchParams that this kind of index has."""

    @property
    def batching(self) -> bool:
        """Whether many queries together cost less than one by one."""

    @property
    def abandoned(self) -> int:
        """How many searches of shards took too long, and still run."""

    # Nine parameters, all but two by keyword: each is a choice of the caller's own, and what a query does must travel with it.
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
        """Return the k best hits of each of the queries (Q, dimension).

        `rows`, a mask over the gallery, limits the search to some rows. `without` are ids, ascending and each once, that
        must not be among the hits: photos that were removed, of which there may be many. Hits are fetched as if these
        photos were there, and dropped; where that leaves too few, more are fetched. A mask for them would cost every call a
        million rows, and a Flat index that then cannot use BLAS is seven times slower.

        `exact` compares with every embedding instead of asking the index. With `allow_partial`, shards that have not
        answered within `timeout_s` are left out, as long as one has answered.

        Raises ServiceError: SHARD_TIMEOUT if a shard is late and may not be left out, or if reranking, which is given
        the same time again, is late; SHUTTING_DOWN if the engine is being closed.
        """

    def interrupt(self) -> None:
        """Fail the searches that callers wait for, and any later one, with SHUTTING_DOWN."""

    def close(self) -> None:
        """Close the shards, after the searches that still run and were not abandoned."""
