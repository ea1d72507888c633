"""Ranking hits: many lists become one, so that any number of shards answers exactly as one index would."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARGIN = 8
"""Hits fetched beyond k, so that few ties reach past what was fetched."""
_MOST_FETCHED = 2**16
"""Hits that are fetched at a time, over all queries, after a first fetch that was not enough."""

NO_IDS = np.empty(0, np.int64)


@dataclass(frozen=True)
class Hits:
    """The ids nearest to each of Q queries, by (score desc, id asc). Where there are fewer than k, the id is -1."""

    scores: NDArray[np.float32]  # (Q, <= k), -inf where the id is -1
    ids: NDArray[np.int64]  # (Q, <= k)


@dataclass(frozen=True)
class Fetched:
    """Some of the best hits of each of Q queries, in any order.

    Which of the items that tie for the last place are among them is left open. Where there are fewer hits, or some do not
    count, the id is -1.
    """

    hits: Hits
    rest: NDArray[np.floating]  # (Q,): no item that was not fetched scores more; -inf if all were fetched


Fetch = Callable[[NDArray[np.float32], int], Fetched]
"""Finds the given number of hits for each of the queries (Q, dimension)."""


def empty(queries: int) -> Hits:
    return Hits(np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64))


def merge(parts: Sequence[Hits], k: int) -> Hits:
    """Return the k best hits of all parts. The order within a part does not matter."""
    if len(parts) == 1 and _ranked(parts[0]):
        return Hits(parts[0].scores[:, :k], parts[0].ids[:, :k])
    scores = np.concatenate([part.scores for part in parts], axis=1)
    ids = np.concatenate([part.ids for part in parts], axis=1)
    # Unsigned, the id -1 is the largest of all.
    order = np.lexsort((ids.view(np.uint64), -scores), axis=1)[:, :k]
    queries = np.arange(len(order))[:, None]
    return Hits(scores[queries, order], ids[queries, order])


def _ranked(hits: Hits) -> bool:
    """Return whether the hits are in order already, as faiss gives them where none tie."""
    return bool(np.less(hits.scores[:, 1:], hits.scores[:, :-1]).all())


def top_k(fetch: Fetch, queries: NDArray[np.float32], k: int, size: int) -> Hits:
    """Return the k best hits among `size` items. Of items that tie for the last place, those with the smallest ids win.

    faiss leaves open which of the tied items it returns, and some of what it returns may not count (`dropping`). So more
    than k hits are fetched: once whatever was not fetched is worse than the k-th, every item that ties with the k-th is
    there. Until then, more are fetched.
    """
    return _best(fetch, queries, k, min(k + MARGIN, size), size)


def dropping(fetch: Fetch, without: NDArray[np.int64]) -> Fetch:
    """Return a `Fetch` that drops the hits with the ids `without`, which are ascending."""
    if not len(without):
        return fetch

    def fetch_others(queries: NDArray[np.float32], k: int) -> Fetched:
        fetched = fetch(queries, k)
        scores, ids = fetched.hits.scores, fetched.hits.ids
        dropped = without[np.searchsorted(without[:-1], ids)] == ids
        others = Hits(np.where(dropped, np.float32(-np.inf), scores), np.where(dropped, -1, ids))
        return Fetched(others, fetched.rest)

    return fetch_others


def _best(fetch: Fetch, queries: NDArray[np.float32], k: int, width: int, size: int) -> Hits:
    fetched = fetch(queries, width)
    ranked = merge([fetched.hits], width)
    best = Hits(ranked.scores[:, :k], ranked.ids[:, :k])
    undecided = np.flatnonzero(_undecided(ranked, fetched.rest, k)) if width < size else ()
    if not len(undecided):
        return best
    best = Hits(best.scores.copy(), best.ids.copy())
    wider = min(4 * width, size)
    # A query that ties with a whole gallery is searched alone.
    together = max(1, _MOST_FETCHED // wider)
    for start in range(0, len(undecided), together):
        rows = undecided[start : start + together]
        more = _best(fetch, queries[rows], k, wider, size)
        best.scores[rows], best.ids[rows] = more.scores, more.ids
    return best


def _undecided(ranked: Hits, rest: NDArray[np.floating], k: int) -> NDArray[np.bool_]:
    """Return (Q,) whether an item that was not fetched may belong among the k best. Where rest is -inf, none is left."""
    undecided: NDArray[np.bool_] = (rest > -np.inf) & (rest >= ranked.scores[:, k - 1])
    return undecided
