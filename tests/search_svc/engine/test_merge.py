import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.engine.merge import MARGIN, Fetched, Hits, dropping, empty, merge, top_k


def hits(*queries):
    """Return hits from a list of (score, id) for each query."""
    scores = np.array([[score for score, _ in query] for query in queries], np.float32)
    ids = np.array([[number for _, number in query] for query in queries], np.int64)
    return Hits(scores, ids)


def pairs(found: Hits, row: int = 0) -> list[tuple[float, int]]:
    return list(zip(found.scores[row].tolist(), found.ids[row].tolist(), strict=True))


def test_higher_scores_come_first_and_equal_scores_by_id():
    left, right = hits([(3.0, 7), (1.0, 2)]), hits([(1.0, 0), (2.0, 9)])
    assert pairs(merge([left, right], 3)) == [(3.0, 7), (2.0, 9), (1.0, 0)]


def test_what_is_missing_comes_last_whatever_the_scores():
    found = merge([hits([(-np.inf, -1), (-5e37, 4)]), hits([(-np.inf, -1), (-np.inf, -1)])], 3)
    assert found.ids.tolist() == [[4, -1, -1]]


def test_no_part_is_longer_than_asked():
    assert merge([empty(2), empty(2)], 5).ids.shape == (2, 0)


@given(st.data())
def test_merging_parts_equals_sorting_everything(data):
    scores = data.draw(st.lists(st.integers(-2, 2), min_size=1, max_size=30))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(scores)), max_size=4)))
    k = data.draw(st.integers(1, len(scores)))
    everything = list(zip(map(float, scores), range(len(scores)), strict=True))
    parts = [everything[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(scores)], strict=True)]
    found = merge([hits(part) for part in parts if part], k)
    assert pairs(found) == sorted(everything, key=lambda hit: (-hit[0], hit[1]))[:k]


class HighestIds:
    """An index of one-dimensional items that, like faiss, keeps the largest ids of a tie, and shuffles what it finds."""

    def __init__(self, scores: list[int]) -> None:
        self.hits = sorted(((float(s), i) for i, s in enumerate(scores)), key=lambda hit: (-hit[0], -hit[1]))
        self.asked: list[tuple[int, int]] = []

    def fetch(self, queries, k):
        self.asked.append((len(queries), k))
        found = self.hits[:k]
        np.random.default_rng(k).shuffle(found)
        return Fetched(hits(*[found for _ in queries]), np.full(len(queries), self.hits[:k][-1][0]))


@given(st.integers(1, 80).flatmap(lambda size: st.lists(st.integers(0, 1), min_size=size, max_size=size)), st.data())
def test_ties_for_the_last_place_go_to_the_smallest_ids(scores, data):
    k = data.draw(st.integers(1, len(scores)))
    index = HighestIds(scores)
    found = top_k(index.fetch, np.zeros((2, 1), np.float32), k, len(scores))
    expected = sorted(((float(s), i) for i, s in enumerate(scores)), key=lambda hit: (-hit[0], hit[1]))[:k]
    assert pairs(found, 0) == pairs(found, 1) == expected


def test_without_ties_one_fetch_is_enough():
    index = HighestIds(list(range(1000)))
    top_k(index.fetch, np.zeros((3, 1), np.float32), 5, 1000)
    assert index.asked == [(3, 5 + MARGIN)]


def test_a_query_that_ties_with_everything_is_widened_alone():
    index = HighestIds([0] * 40_000)
    top_k(index.fetch, np.zeros((3, 1), np.float32), 5, 40_000)
    assert index.asked[-3:] == [(1, 40_000)] * 3


@pytest.mark.parametrize("k", [3, 20])
def test_a_part_smaller_than_k_gives_all_it_has(k):
    index = HighestIds([1, 2, 1])
    found = top_k(index.fetch, np.zeros((1, 1), np.float32), k, 3)
    assert pairs(found) == [(2.0, 1), (1.0, 0), (1.0, 2)]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.data())
def test_what_is_dropped_makes_room_for_what_comes_next(scores, data):
    size = len(scores)
    k = data.draw(st.integers(1, size))
    dropped = data.draw(st.sets(st.integers(0, size - 1)))
    fetch = dropping(HighestIds(scores).fetch, np.array(sorted(dropped), np.int64))
    found = top_k(fetch, np.zeros((2, 1), np.float32), k, size)
    others = sorted(
        ((float(s), i) for i, s in enumerate(scores) if i not in dropped), key=lambda hit: (-hit[0], hit[1])
    )
    for row in (0, 1):
        assert [pair for pair in pairs(found, row) if pair[1] >= 0] == others[:k]


def test_queries_whose_best_were_dropped_are_widened_together_as_memory_allows():
    index = HighestIds(list(range(100_000)))
    fetch = dropping(index.fetch, np.arange(99_000, 100_000))
    top_k(fetch, np.zeros((64, 1), np.float32), 5, 100_000)
    assert index.asked[1] == (64, 4 * (5 + MARGIN))
    assert all(queries * width <= 2**16 for queries, width in index.asked[1:])


def test_an_index_that_has_no_more_is_not_asked_for_more():
    index = HighestIds([3, 2, 1])
    asked = []

    def fetch(queries, k):
        asked.append(k)
        found = index.fetch(queries, 3).hits
        missing = np.full((len(queries), k - 3), -1)
        return Fetched(
            merge([found, Hits(np.full(missing.shape, -np.inf, np.float32), missing)], k), np.array([-np.inf])
        )

    assert pairs(top_k(fetch, np.zeros((1, 1), np.float32), 5, 1000))[:3] == [(3.0, 0), (2.0, 1), (1.0, 2)]
    assert asked == [5 + MARGIN]
