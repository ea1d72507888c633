"""Ranking: many lists of hits into one, so that any number of shards answers exactly as one index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARGIN = 8
"""Hits fetched beyond k, so that few ties reach past what was fetched."""
_MOST_FETCHED = 2**16
"""Hits of several queries that are fetched at a time where the first fetch was not enough."""


NONE = np.empty(0, np.int64)
"""No ids."""


@dataclass(frozen=True)
class Hits:
    """The gallery items nearest to each of Q queries, by (score desc, id asc). Queries that have fewer end in id -1."""

    scores: NDArray[np.float32]  # (Q, <= k), -inf where the id is -1
    ids: NDArray[np.int64]  # (Q, <= k)


@dataclass(frozen=True)
class Fetched:
    """A number of the best hits of each of Q queries; in any order, and any of those that tie for the last place.

    Where there are fewer, or some do not count, the id is -1.
    """

    hits: Hits
    rest: NDArray[np.floating]  # (Q,): no item that was not fetched scores more; -inf if there is none


Fetch = Callable[[NDArray[np.float32], int], Fetched]
"""Finds a number of the best hits of queries."""


def empty(queries: int) -> Hits:
    return Hits(np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64))


def merge(parts: Sequence[Hits], k: int) -> Hits:
    """The k best hits of all parts; a part's own order does not matter."""
    if len(parts) == 1 and _ranked(parts[0]):
        return Hits(parts[0].scores[:, :k], parts[0].ids[:, :k])
    scores = np.concatenate([part.scores for part in parts], axis=1)
    ids = np.concatenate([part.ids for part in parts], axis=1)
    # Unsigned, the id -1 is the largest of all.
    order = np.lexsort((ids.view(np.uint64), -scores), axis=1)[:, :k]
    queries = np.arange(len(order))[:, None]
    return Hits(scores[queries, order], ids[queries, order])


def _ranked(hits: Hits) -> bool:
    """Whether they are in order already, as faiss gives them where none tie."""
    return bool(np.less(hits.scores[:, 1:], hits.scores[:, :-1]).all())


def top_k(fetch: Fetch, queries: NDArray[np.float32], k: int, size: int) -> Hits:
    """The k best hits among `size` items, ties for the last place given to the smallest ids.

    Which of the tied items a faiss index returns is its own affair, and some of what it returns may not count (`dropping`).
    So fetch more than k: where whatever was not fetched is worse than the k-th, every item that ties with the k-th was
    fetched. Where it may not be, fetch more.
    """
    return _best(fetch, queries, k, min(k + MARGIN, size), size)


def dropping(fetch: Fetch, without: NDArray[np.int64]) -> Fetch:
    """What it fetches, but for these ids, ascending."""
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
    undecided = np.flatnonzero(_open(ranked, fetched.rest, k)) if width < size else ()
    if not len(undecided):
        return best
    best = Hits(best.scores.copy(), best.ids.copy())
    wider = min(4 * width, size)
    # One query at a time, where it ties with a whole gallery.
    together = max(1, _MOST_FETCHED // wider)
    for start in range(0, len(undecided), together):
        rows = undecided[start : start + together]
        more = _best(fetch, queries[rows], k, wider, size)
        best.scores[rows], best.ids[rows] = more.scores, more.ids
    return best


def _open(ranked: Hits, rest: NDArray[np.floating], k: int) -> NDArray[np.bool_]:
    """(Q,): whether items that belong among the k best hits may be among those not fetched. There are none where rest is -inf."""
    undecided: NDArray[np.bool_] = (rest > -np.inf) & (rest >= ranked.scores[:, k - 1])
    return undecided
