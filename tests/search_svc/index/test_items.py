import gc
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.dataset.cuts import Cut, CutKind, Cuts
from search_svc.index.items import Items, write_items
from search_svc.voting.labels import parse
from svckit.artifact import ArtifactError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
labels = text.map(lambda name: parse(unicodedata.normalize("NFC", name)))
rows = st.lists(st.tuples(text, text, labels), min_size=1, max_size=40)


@settings(deadline=None)
@given(rows)
def test_what_is_written_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("items") / "items.arrow"
    ids, uris, labels = zip(*rows, strict=True)
    write_items(path, ids, labels, uris)
    items = Items.open(path)
    assert len(items) == len(rows)
    assert [items.item_id(row) for row in range(len(rows))] == list(ids)
    assert [items.uri(row) for row in range(len(rows))] == list(uris)
    assert items.take(range(len(rows))[::-1]) == (list(ids)[::-1], list(uris)[::-1])
    assert [items.labels[i] for i in items.label_of] == list(labels)
    assert [label.label for label in items.labels] == sorted({label.label for label in labels})


def test_labels_of_older_files_are_brought_into_one_form_of_unicode(tmp_path):
    nfc, nfd = parse("citro\u00ebn_c4_2011"), parse("citroe\u0308n_c4_2011")
    write_items(tmp_path / "items.arrow", ["a", "b", "c"], [nfc, nfd, nfd], ["", "", ""])
    items = Items.open(tmp_path / "items.arrow")
    assert {label.label for label in items.labels} == {nfc.label}
    assert items.sizes == {nfc.label: 3}


@settings(deadline=None)
@given(st.lists(text, min_size=1, max_size=40, unique=True), text)
def test_rows_are_found_by_item_id_and_ordered_by_it(tmp_path_factory, ids, other):
    path = tmp_path_factory.mktemp("items") / "items.arrow"
    write_items(path, ids, [parse("a")] * len(ids), ids)
    items = Items.open(path)
    assert [items.row(item_id) for item_id in ids] == list(range(len(ids)))
    assert items.row(other) == (ids.index(other) if other in ids else None)
    assert [ids[row] for row in items.by_id] == sorted(ids)
    assert items.place_by_id(other) == sum(item_id < other for item_id in ids)


def test_items_that_were_enrolled_keep_their_batch_and_attributes(tmp_path):
    path = tmp_path / "items.arrow"
    labels = [parse("a"), parse("b"), parse("a")]
    attributes = [{"dealer": "7", "a": ""}, {}, {}]
    write_items(path, "xyz", labels, ["", "", ""], batch_ids=["may", "", "may"], attributes=attributes)
    items = Items.open(path)
    assert [items.batch_id(row) for row in range(3)] == ["may", "", "may"]
    assert [items.attributes(row) for row in range(3)] == [{"dealer": "7", "a": ""}, {}, {}]
    assert items.rows_of_batch("may").tolist() == [0, 2]
    assert items.rows_of_batch("june").tolist() == items.rows_of_batch("").tolist() == []
    assert items.take([2, 0]) == (["z", "x"], ["", ""])


def test_items_that_were_not_have_neither(tmp_path):
    write_items(tmp_path / "items.arrow", ["x"], [parse("a")], [""])
    items = Items.open(tmp_path / "items.arrow")
    assert (items.batch_id(0), items.attributes(0), items.rows_of_batch("may").tolist()) == ("", {}, [])


CUTS = [Cut(0.25, 0.125, 0.75, 1, 0.875), None, Cut(0, 0, 1, 1, no_car_found=True), Cut(0, 0, 0.5, 1), Cut(0, 0, 1, 1)]


@pytest.mark.parametrize("enrolled", [{}, {"batch_ids": [""] * 5, "attributes": [{"a": "b"}, {}, {}, {}, {}]}])
def test_items_keep_what_of_their_photos_was_embedded(tmp_path, enrolled):
    path = tmp_path / "items.arrow"
    write_items(path, "abcde", [parse("x")] * 5, [""] * 5, cuts=Cuts.of(CUTS), **enrolled)
    items = Items.open(path)
    assert [items.cut(row) for row in range(5)] == CUTS
    kinds = [CutKind.CAR, CutKind.UNKNOWN, CutKind.NO_CAR_FOUND, CutKind.GIVEN, CutKind.WHOLE]
    assert items.cut_kinds.tolist() == kinds
    assert items.attributes(0) == ({"a": "b"} if enrolled else {})


def test_items_of_which_it_is_not_known_are_written_as_before_and_say_so(tmp_path):
    for name, cuts in (("before", None), ("now", Cuts.unknown(2))):
        write_items(tmp_path / name, "ab", [parse("x")] * 2, ["", ""], cuts=cuts)
    assert (tmp_path / "before").read_bytes() == (tmp_path / "now").read_bytes()
    items = Items.open(tmp_path / "before")
    assert (items.cuts, items.cut(1), items.cut_kinds.tolist()) == (None, None, [CutKind.UNKNOWN] * 2)


def test_labels_by_row_are_int32_straight_from_the_file_and_outlive_what_opened_them(tmp_path):
    write_items(tmp_path / "items.arrow", ["a", "b", "c"], [parse(name) for name in "yxy"], ["", "", ""])
    before = pa.total_allocated_bytes()
    label_of = Items.open(tmp_path / "items.arrow").label_of
    gc.collect()
    assert pa.total_allocated_bytes() == before
    assert label_of.dtype == np.int32
    assert label_of.tolist() == [1, 0, 1]
    assert not label_of.flags.writeable


def test_a_file_that_holds_no_items_is_refused(tmp_path):
    path = tmp_path / "items.arrow"
    for content in (b"", b"not arrow at all"):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"items\.arrow: "):
            Items.open(path)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("a", pa.int32())])) as writer:
        writer.write_batch(pa.record_batch({"a": pa.array([1], pa.int32())}))
    with pytest.raises(ArtifactError, match=r"items\.arrow: not the items of an index version"):
        Items.open(path)
    write_items(tmp_path / "whole.arrow", ["a"], [parse("a")], [""])
    with pa.ipc.open_file(str(tmp_path / "whole.arrow")) as whole, pa.ipc.new_file(str(path), whole.schema):
        pass
    with pytest.raises(ArtifactError, match=r"items\.arrow: not the items of an index version"):
        Items.open(path)
