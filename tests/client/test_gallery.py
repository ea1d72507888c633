"""Changing the gallery, with either client."""

import hashlib
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import vmmr
from vmmr import Item, NewItem
from vmmr.gallery.v1 import gallery_pb2
from vmmr.search.v1 import search_pb2

from tests.client.conftest import neighbour


def new(n: int, label: str = "honda_pilot_2027", **others: object) -> NewItem:
    return NewItem(b"%d" % n, label=label, **others)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_items_are_added_with_all_that_is_known_of_them(client, services):
    item = Item("a", "honda_pilot_2027", "photos/a.jpg", "monday", {"seller": "Ann"})
    assert client.add_items([item, Item("b", "x")], client.embed([b"1", b"2"])) == vmmr.AddResult(2, 0, 0, 1)
    [call] = services.search.script.of("AddItems")
    assert call.request.items[0] == gallery_pb2.Item(
        item_id="a", label="honda_pilot_2027", uri="photos/a.jpg", batch_id="monday", attributes={"seller": "Ann"}
    )
    assert [value for _, value in services.search.items.values()] == [1, 2]
    assert client.get_item("a") == item


def test_items_that_are_there_are_told_apart(client):
    client.add_items([Item("a", "x"), Item("b", "x")], client.embed([b"1", b"2"]))
    result = client.add_items([Item("a", "x"), Item("b", "y"), Item("c", "x")], client.embed([b"1", b"2", b"3"]))
    assert result == vmmr.AddResult(added=1, replaced=1, unchanged=1, journal_sequence=2)


def test_an_item_without_an_embedding_is_refused_before_anything_is_sent(client, services):
    with pytest.raises(ValueError, match="an embedding for each item, got 1 for 2"):
        client.add_items([Item("a", "x"), Item("b", "x")], client.embed([b"1"]))
    assert services.search.script.of("AddItems") == []


def test_items_are_deleted_by_id_or_label_or_batch(client):
    items = [Item("a", "x"), Item("b", "x"), Item("c", "y"), Item("d", "z", batch_id="monday")]
    client.add_items(items, client.embed([b"1", b"2", b"3", b"4"]))
    assert client.delete_items(["a", "gone"]) == vmmr.DeleteResult(deleted=1, journal_sequence=2)
    assert client.delete_items(label="y").deleted == 1
    assert client.delete_items(batch_id="monday").deleted == 1
    assert list(client.list_items()) == [Item("b", "x")]


@pytest.mark.parametrize("selectors", [{}, {"item_ids": []}, {"label": ""}, {"label": "x", "batch_id": "y"}])
def test_what_is_to_be_deleted_is_said_in_one_way(client, services, selectors):
    with pytest.raises(ValueError, match="give one of item_ids, label and batch_id, got"):
        client.delete_items(**selectors)
    assert services.search.script.of("DeleteItems") == []


def test_an_item_that_is_not_there_has_an_error_of_its_own(client):
    with pytest.raises(vmmr.ItemNotFoundError, match="there is no item nobody"):
        client.get_item("nobody")


def test_items_come_page_after_page_and_filtered(client, services):
    items = [Item(f"{n}", "xy"[n % 2], batch_id="monday" if n < 3 else "") for n in range(5)]
    client.add_items(items, client.embed([b"%d" % n for n in range(5)]))
    assert list(client.list_items()) == items
    assert [call.request.page_token for call in services.search.script.of("ListItems")] == ["", "1", "3"]
    assert [item.item_id for item in client.list_items(vmmr.Filter(labels=("x",)), batch_id="monday")] == ["0", "2"]


def test_a_compaction_tells_the_version_that_is_served(client, services):
    created = datetime(2026, 11, 28, 10, tzinfo=UTC)
    assert client.compact() == vmmr.Compaction("000002", 0, created, 0)
    [call] = services.search.script.of("Compact")
    assert 3500 < call.time_left_s <= 3610  # gRPC sends a deadline of an hour in steps of ten seconds, rounded up


def test_versions_tell_what_is_on_the_disk_and_what_the_journal_holds(client):
    damaged, current = client.versions().versions
    assert damaged == vmmr.IndexVersion("000001", 0, None, "", 0, current=False, in_use=False)
    assert (current.items, current.current, current.in_use) == (7, True, True)
    assert (client.versions().journal_depth, client.versions().journal_bytes) == (2, 4096)


def test_a_search_may_wait_for_what_was_written(client, services):
    written = client.add_items([Item("a", "x")], client.embed([b"1"]))
    client.identify(b"1", options=vmmr.SearchOptions(min_sequence=written.journal_sequence))
    client.identify(b"1")
    asked = [call.request.options for call in services.search.script.of("Classify")]
    assert [options.min_sequence for options in asked] == [1, 0]
    assert [options.HasField("min_sequence") for options in asked] == [True, False]


def test_a_sequence_that_no_message_can_carry_is_refused():
    with pytest.raises(ValueError, match="min_sequence must be >= 0"):
        vmmr.SearchOptions(min_sequence=-1)


# --- photos ---


def test_photos_are_embedded_and_added_and_their_bytes_are_their_ids(client, services, tmp_path):
    (tmp_path / "2.jpg").write_bytes(b"2")
    named = NewItem(tmp_path / "2.jpg", label="y", item_id="two", uri="u", batch_id="b", attributes={"k": "v"})
    outcomes = list(client.add_photos([new(1), named]))
    assert [o.item for o in outcomes] == [
        Item(sha(b"1"), "honda_pilot_2027"),
        Item("two", "y", "u", "b", {"k": "v"}),
    ]
    assert [(o.position, o.error, o.journal_sequence) for o in outcomes] == [(0, None, 1), (1, None, 1)]
    assert [o.photo for o in outcomes] == [new(1), named]
    assert services.search.items["two"][1] == 2


def test_each_photo_comes_with_the_one_that_was_nearest_to_it(client, services):
    services.search.near = {2: [], 3: [search_pb2.Neighbour(item_id=sha(b"3"), score=1), neighbour(7, 0.99)]}
    outcomes = list(client.add_photos([new(1), new(2), new(3)]))
    assert [o.nearest and (o.nearest.item_id, o.nearest.label.label, o.nearest.score) for o in outcomes] == [
        ("item-1", "honda_pilot_2001", pytest.approx(0.9)),
        None,
        ("item-7", "honda_pilot_2007", pytest.approx(0.99)),
    ]
    [search], [add] = services.search.script.of("Search"), services.search.script.of("AddItems")
    assert (search.request.options.k, search.request.options.allow_partial) == (2, True)
    assert search.request.queries == add.request.embeddings
    received = [call.method for call in services.search.script.received]
    assert received.index("Search") < received.index("AddItems")


def test_a_gallery_that_cannot_be_searched_is_added_to_and_that_is_told(client, services, fail):
    services.search.script.then(lambda *_: None, fail("SHARD_TIMEOUT", "not answered in time"))
    [outcome] = client.add_photos([new(1)])
    assert (outcome.item.item_id, outcome.error, outcome.nearest) == (sha(b"1"), None, None)
    assert "not answered in time" in str(outcome.not_compared)
    assert len(services.search.items) == 1


def test_the_same_photos_again_change_nothing(client, services):
    list(client.add_photos([new(1), new(2)]))
    list(client.add_photos([new(1), new(2)]))
    assert len(services.search.items) == 2


def test_one_photo_given_twice_is_one_item_with_the_last_label(client, services):
    outcomes = list(client.add_photos([new(1, "x"), new(1, "y")]))
    assert [o.error for o in outcomes] == [None, None]
    assert client.get_item(sha(b"1")).label == "y"
    assert [len(call.request.items) for call in services.search.script.of("AddItems")] == [1]


def test_bad_photos_cost_the_others_nothing(client, services, tmp_path):
    photos = [new(1), NewItem(b"bad", label="x"), NewItem(tmp_path / "none.jpg", label="x"), new(2)]
    outcomes = list(client.add_photos(photos))
    assert [type(o.error) for o in outcomes] == [
        type(None),
        vmmr.InvalidPhotoError,
        vmmr.UnreadablePhotoError,
        type(None),
    ]
    assert [o.item is None for o in outcomes] == [False, True, True, False]
    assert len(services.search.items) == 2


def test_a_batch_that_is_refused_is_the_error_of_its_photos_alone(client, services, fail):
    services.search.script.marked[np.float32(3333).tobytes()] = fail("MODEL_MISMATCH")
    outcomes = list(client.add_photos([new(n) for n in (1111, 2222, 3333, 4444)], batch=2))
    assert [type(o.error) for o in outcomes] == [type(None)] * 2 + [vmmr.ModelMismatchError] * 2


def test_an_overloaded_gallery_is_asked_again(client, services, fail):
    services.search.script.then(lambda *_: None, lambda *_: None, fail("JOURNAL_FULL", retry_after_s=0.02))
    assert [o.error for o in client.add_photos([new(1)])] == [None]
    assert len(services.search.script.of("AddItems")) == 2


def test_batches_are_no_larger_than_the_search_that_compares_them_accepts(client, services):
    services.search.limits.max_queries = 2
    outcomes = list(client.add_photos([new(number) for number in range(5)]))
    assert [(o.error, o.not_compared) for o in outcomes] == [(None, None)] * 5
    assert len(services.search.script.of("Search")) == 3


def test_batches_are_no_larger_than_the_embedder_accepts(client, services):
    services.embedder.limits.max_images = 3
    list(client.add_photos([new(n) for n in range(7)], batch=100))
    assert sorted(len(call.request.items) for call in services.search.script.of("AddItems")) == [1, 3, 3]


def test_photos_to_add_are_taken_as_they_are_needed(services):
    taken = []

    def endless():
        for n in count():
            taken.append(n)
            yield new(n)

    with vmmr.Client(*services.targets) as client:
        outcomes = client.add_photos(endless(), batch=2)
        for seen in range(10):
            assert next(outcomes).position == seen
            assert len(taken) <= seen + 6
        outcomes.close()


async def test_photos_to_add_may_come_asynchronously(services):
    async def two():
        yield new(1)
        yield new(2)

    async with vmmr.AsyncClient(*services.targets) as client:
        assert [o.error async for o in client.add_photos(two())] == [None, None]


LABEL = vmmr.Label("honda_pilot_2011", "honda", "pilot", 2011)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Item("a", LABEL), "label must be a str, got Label: give its label, 'honda_pilot_2011'"),
        (lambda: Item(LABEL, "a"), "item_id must be a str, got Label"),
        (lambda: Item(1, "x"), "item_id must be a str, got int"),
        (lambda: Item("a", "x", batch_id=None), "batch_id must be a str, got NoneType"),
        (lambda: Item("a", "x", uri=Path("a.jpg")), "uri must be a str, got PosixPath"),
        (lambda: Item("a", "x", attributes={"doors": 4}), "attributes['doors'] must be a str, got int"),
        (lambda: Item("a", "x", attributes="doors"), "attributes must be a mapping of str to str, got str"),
        (lambda: NewItem(b"1", label=LABEL), "label must be a str, got Label: give its label"),
        (lambda: NewItem(b"1", label="x", item_id=7), "item_id must be a str, got int"),
        (lambda: vmmr.Filter(makes="honda"), 'makes must be a tuple of str, such as ("honda",), got str'),
        (lambda: vmmr.Filter(labels=(LABEL,)), "labels[0] must be a str, got Label: give its label"),
    ],
)
def test_what_is_of_another_kind_is_named_with_what_is_wanted(make, said):
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value).startswith(said)


def test_a_photo_without_a_label_is_refused():
    with pytest.raises(ValueError, match="label must not be empty"):
        NewItem(b"1", label="")


def test_calls_of_one_batch_carry_one_request_id(client, services):
    list(client.add_photos([new(1)]))
    [embed], [add] = services.embedder.script.of("Embed"), services.search.script.of("AddItems")
    assert embed.metadata["x-request-id"] == add.metadata["x-request-id"]
