"""Searches across callers: queries that waited together and have the same plan are searched together."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.merge import Hits
from search_svc.live.view import View
from search_svc.serving.queries import Plan, Query
from search_svc.voting.neighbours import QueryNeighbours
from svckit.errors import Reason, ServiceError

_SHARDS_SHARE = 0.9
"""Share of the callers' time that the shards get, if a partial answer is allowed; the rest is to make and send the answer."""
_LONGEST_S = 0.01
"""What a batch should take at most where its queries cost as much together as one by one: others wait for it."""


@dataclass(frozen=True)
class SearchOutcome:
    """The neighbours of one query, and the view that they were found in."""

    neighbours: QueryNeighbours
    """Its rows are rows of `view.items`."""
    view: View
    missing: int
    """Number of shards whose photos were not searched."""


class Searcher:
    """Searches the batches of a Batcher: each query by its plan, all queries of a call in one view."""

    def __init__(self, newest: Callable[[], View]) -> None:
        """`newest` returns the view to search; it is called once a batch."""
        self._newest = newest
        self.longest_s = math.inf
        """The seconds that the next batch should take at most, if several callers' queries are in it."""

    def run(self, queries: Sequence[Query]) -> list[SearchOutcome | Exception]:
        """Return an outcome for each query, or the error for which there is none. It fails queries of one plan alone."""
        newest = self._newest()
        positions = defaultdict(list)
        for position, query in enumerate(queries):
            view = query.call.view(newest) if query.call else newest
            positions[view, query.plan].append(position)
        found: dict[int, SearchOutcome | Exception] = {}
        for (view, plan), group in positions.items():
            found.update(zip(group, _outcomes(view, plan, [queries[position] for position in group]), strict=True))
        gains = any(plan.exact or view.opened.engine.batching for view, plan in positions)
        self.longest_s = math.inf if gains else _LONGEST_S
        return [found[position] for position in range(len(queries))]


def _outcomes(view: View, plan: Plan, queries: Sequence[Query]) -> Sequence[SearchOutcome | Exception]:
    try:
        return _search(view, plan, queries)
    except Exception as error:  # noqa: BLE001 (whatever it is, it fails these queries and no others)
        return [error] * len(queries)


def _search(view: View, plan: Plan, queries: Sequence[Query]) -> list[SearchOutcome]:
    vectors = np.stack([query.vector for query in queries])
    answered = view.search(
        vectors,
        plan.k,
        params=plan.params,
        labels=view.filters.mask(plan.filter) if plan.filter else None,
        exact=plan.exact,
        timeout_s=_timeout_s(plan, queries),
        allow_partial=plan.allow_partial,
    )
    return _to_outcomes(view, answered.hits, queries, view.opened.engine.shards - answered.shards)


def _to_outcomes(view: View, hits: Hits, queries: Sequence[Query], missing: int) -> list[SearchOutcome]:
    # Labels are looked up for all queries at once, since a batch holds hundreds of neighbours.
    counts = np.count_nonzero(hits.ids >= 0, axis=1).tolist()
    positions = view.items.positions(hits.ids)
    each = zip(
        counts,
        hits.ids.tolist(),
        positions.tolist(),
        hits.scores.tolist(),
        _means(view, queries, hits, positions),
        strict=True,
    )
    labels = view.items.labels
    return [
        SearchOutcome(
            QueryNeighbours(rows[:count], [labels[position] for position in of[:count]], scores[:count], means[:count]),
            view,
            missing,
        )
        for count, rows, of, scores, means in each
    ]


def _means(view: View, queries: Sequence[Query], hits: Hits, positions: NDArray[np.int32]) -> list[list[float]]:
    """Return the cosines of each query with the means of its neighbours' labels; none for a query that does not ask."""
    found: list[list[float]] = [[] for _ in queries]
    asking = [place for place, query in enumerate(queries) if query.means]
    if asking:
        vectors = np.stack([queries[place].vector for place in asking])
        labels = np.where(hits.ids >= 0, positions, -1)[asking]
        for place, means in zip(asking, view.means.similarities(vectors, labels).tolist(), strict=True):
            found[place] = means
    return found


def _timeout_s(plan: Plan, queries: Sequence[Query]) -> float | None:
    """Return the seconds that the shards have: at most what the plan allows, and what the most patient caller waits."""
    left_s = max(query.deadline for query in queries) - time.monotonic()
    if left_s <= 0:
        raise ServiceError(Reason.DEADLINE_EXCEEDED, "the deadline passed before the search began")
    if plan.allow_partial:
        left_s *= _SHARDS_SHARE
    limit_s = min(left_s, math.inf if plan.timeout_s is None else plan.timeout_s)
    return None if limit_s == math.inf else limit_s
