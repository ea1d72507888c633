import dataclasses

import numpy as np
import pytest

from search_svc.building.spec import IndexSpec
from search_svc.dataset.cuts import Cut, CutCounts, Cuts
from search_svc.index.journal import Entry, StoredItem
from search_svc.live.delta import Delta
from search_svc.live.view import Opened, View
from search_svc.voting.growing import Growing
from search_svc.voting.labels import parse
from tests.search_svc.builds import build_version

D = 4


def version(directory, labels, **fields):
    return build_version(
        directory,
        embeddings=np.eye(3, D, dtype=np.float32),
        item_ids=["a", "b", "c"],
        labels=[parse(name) for name in labels],
        uris=["", "", ""],
        model="m",
        model_name="test",
        spec=IndexSpec(),
        **fields,
    )


@pytest.fixture
def delta(tmp_path):
    return Delta(version(tmp_path, "xyx"))


def entry(item_id, label="x", value=1.0, cut=None):
    return Entry(1, item_id, StoredItem(label, f"{item_id}.jpg", "", {}, np.full(D, value, "<f2").tobytes(), cut))


def sums_of(snapshot):
    return np.stack([snapshot.means.sum_of(label) for label in range(len(snapshot.counts))])


def test_growing_arrays_keep_what_was_told_of_them():
    numbers = Growing(np.int64)
    told = []
    for number in range(1000):
        numbers.append(number)
        told.append(numbers.first(number + 1))
    assert len(numbers) == 1000
    assert all(each.tolist() == list(range(len(each))) for each in told)


def test_a_snapshot_is_of_its_moment_whatever_is_written_after(delta):
    delta.write(entry("n"))
    delta.write(entry("a", "z"))
    before = delta.snapshot()
    told = (before.live.copy(), before.counts.copy(), before.embeddings.copy(), sums_of(before))
    for number in range(100):
        delta.write(entry("n", "w", number))
        delta.write(entry(f"more {number}", f"label {number}"))
    delta.write(Entry(9, "b", None))
    for was, now in zip(told, (before.live, before.counts, before.embeddings, sums_of(before)), strict=True):
        assert was.tolist() == now.tolist()
    assert (before.row("n"), before.row("a"), before.row("b"), before.row("more 1")) == (3, 4, 1, None)
    after = delta.snapshot()
    assert (after.row("b"), after.row("a"), after.row("n")) == (None, 4, 203)
    assert before.gone_rows.tolist() == [0]
    assert after.gone_rows.tolist() == [0, 1]


def test_what_was_deleted_twice_is_counted_once_and_may_come_back(delta):
    for item_id in ("a", "a", "n", "nobody"):
        delta.write(Entry(1, item_id, None))
    assert delta.snapshot().counts.tolist() == [1, 1]
    delta.write(entry("a", "y"))
    delta.write(Entry(1, "a", None))
    delta.write(Entry(1, "a", None))
    assert delta.snapshot().counts.tolist() == [1, 1]
    delta.write(entry("a", "y"))
    assert delta.snapshot().counts.tolist() == [1, 2]
    assert delta.snapshot().live_items == 1


def test_photos_are_counted_by_how_they_were_cut_whatever_is_written_and_deleted(tmp_path):
    car, no_car = Cut(0.25, 0.25, 0.75, 1, 0.875), Cut(0, 0, 1, 1, no_car_found=True)
    whole, given = Cut(0, 0, 1, 1, 0.5), Cut(0, 0, 0.5, 1)
    delta = Delta(version(tmp_path, "xxx", cuts=Cuts.of([car, None, no_car])))

    def counts(delta):
        return CutCounts(*delta.snapshot().cuts.tolist())

    before = delta.snapshot()
    delta.write(entry("a", cut=given))
    delta.write(entry("n", cut=whole))
    assert counts(delta) == CutCounts(car=0, whole=1, no_car_found=1, given=1, unknown=1)
    for item_id in ("c", "c", "n", "nobody"):
        delta.write(Entry(1, item_id, None))
    delta.write(entry("n", cut=car))
    delta.write(entry("n", cut=no_car))
    assert counts(delta) == CutCounts(car=0, whole=0, no_car_found=1, given=1, unknown=1)
    assert counts(delta.without_tombstones()) == counts(delta)
    assert CutCounts(*before.cuts.tolist()) == CutCounts(car=1, no_car_found=1, unknown=1)


def test_a_gallery_that_was_not_written_to_is_counted_without_looking_at_its_photos(tmp_path):
    made = version(tmp_path, "xxx", cuts=Cuts.of([Cut(0.25, 0.25, 0.75, 1, 0.875), None, None]))
    assert View(Opened(made, None)).cuts == CutCounts(car=1, unknown=2)
    assert "cuts" not in vars(made.items), "GetIndex asks for it on the event loop, and there may be millions"
    older = dataclasses.replace(made, manifest=dataclasses.replace(made.manifest, cuts=None))
    assert View(Opened(older, None)).cuts == CutCounts(unknown=3)


def test_made_anew_it_holds_the_same_in_the_same_order_without_the_dead(delta):
    for item_id in ("n", "a", "m", "n"):
        delta.write(entry(item_id, "z"))
    delta.write(Entry(1, "b", None))
    delta.write(Entry(1, "m", None))
    old, new = delta.snapshot(), delta.without_tombstones().snapshot()
    assert (old.rows, new.rows) == (4, 2)
    assert [old.delta.items[row].item_id for row in old.live] == ["a", "n"]
    assert [new.delta.items[row].item_id for row in new.live] == ["a", "n"]
    assert new.gone_rows.tolist() == old.gone_rows.tolist() == [0, 1]
    assert new.counts.tolist() == old.counts.tolist() == [1, 0, 2]
    assert sums_of(new).tolist() == sums_of(old).tolist() == [[0, 0, 1, 0], [0] * 4, [2] * 4]
    assert [new.row(item_id) for item_id in "abcnm"] == [3, None, 2, 4, None]
    again = delta.without_tombstones()
    again.write(entry("b", "x"))
    assert again.snapshot().counts.tolist() == [2, 0, 2]


def test_an_embedding_of_another_length_is_a_problem_and_a_deletion_never_is(delta):
    assert delta.problem(entry("n")) is None
    assert delta.problem(Entry(1, "n", None)) is None
    bad = Entry(7, "n", StoredItem("x", "", "", {}, b"123"))
    assert delta.problem(bad) == "entry 7 ('n') has an embedding of 3 bytes, those of the index have 8"
