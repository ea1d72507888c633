import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from search_svc.building.sharding import balanced, by_label

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(st.integers(1, 60), st.data())
def test_balanced_shards_hold_each_row_once_and_an_even_part_of_any_stretch(items, data):
    shards = data.draw(st.integers(1, items))
    parts = balanced(items, shards)
    assert sorted(row for rows in parts for row in rows) == list(range(items))
    start, stop = sorted(data.draw(st.tuples(st.integers(0, items), st.integers(0, items))))
    held = [sum(start <= row < stop for row in rows) for rows in parts]
    assert max(held) - min(held) <= 1


@given(sizes, st.data())
def test_shards_by_label_hold_whole_labels_one_after_the_other(sizes, data):
    label_of = np.repeat(np.arange(len(sizes)), sizes)
    parts = by_label(label_of, data.draw(st.integers(1, len(sizes))))
    assert [row for rows in parts for row in rows] == list(range(len(label_of)))
    assert all(parts)
    labels = [set(label_of[rows].tolist()) for rows in parts]
    assert sum(map(len, labels)) == len(sizes), "no label is in two shards"


def test_shards_by_label_are_as_even_as_labels_allow():
    label_of = np.repeat(np.arange(6), [5, 5, 5, 5, 5, 5])
    assert [len(rows) for rows in by_label(label_of, 3)] == [10, 10, 10]
    assert [len(rows) for rows in by_label(np.repeat(np.arange(3), [90, 5, 5]), 2)] == [90, 10]
    assert [len(rows) for rows in by_label(np.repeat(np.arange(3), [5, 5, 90]), 3)] == [5, 5, 90]
