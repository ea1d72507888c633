import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from search_svc.audit.copies import Copy, groups, to_drop, without_copies
from search_svc.audit.neighbours import NOBODY, Neighbours
from search_svc.dataset.photo_list import SPLITS, Photo
from search_svc.voting.labels import parse

pairs = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda pair: pair[0] != pair[1]), max_size=15)


@given(pairs)
def test_photos_are_in_one_group_if_copies_lead_from_one_to_the_other(pairs):
    reach = {row: {row} for pair in pairs for row in pair}
    for _ in reach:
        for one, other in pairs:
            reach[one] |= reach[other]
            reach[other] |= reach[one]
    expected = sorted({tuple(sorted(rows)) for rows in reach.values()})
    assert sorted(map(tuple, groups(Copy(one, other, 1.0, same=True) for one, other in pairs))) == expected


@given(st.lists(st.sampled_from(SPLITS), min_size=2, max_size=6))
def test_of_copies_one_stays_and_train_keeps_none_of_what_is_measured_with(splits):
    photos = [Photo(f"a/{i}.jpg", parse("honda_pilot_2011"), split) for i, split in enumerate(splits)]
    dropped = {row for row, _ in to_drop(range(len(photos)), photos)}
    (kept,) = set(range(len(photos))) - dropped
    assert photos[kept].split != "train" or set(splits) == {"train"}
    assert photos[kept].split == "test" or "test" not in splits


def test_of_copies_with_different_labels_none_stays():
    photos = [Photo("a/1.jpg", parse("audi_tt_2011"), "train"), Photo("b/2.jpg", parse("audi_rs_2012"), "test")]
    reason = "copies with different labels: audi_tt_2011 and audi_rs_2012"
    assert to_drop([0, 1], photos) == [(0, reason), (1, reason)]


def test_copies_of_a_photo_are_not_among_its_neighbours():
    rows = np.array([[1, 2], [0, 2], [0, NOBODY]], np.int32)
    left = without_copies(Neighbours(rows, np.where(rows == NOBODY, -np.inf, 0.5).astype(np.float32)), [[0, 1]])
    assert left.rows.tolist() == [[2, NOBODY], [2, NOBODY], [0, NOBODY]]
