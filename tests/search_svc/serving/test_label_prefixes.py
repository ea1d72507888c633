"""Callers whose labels are listed add and delete those alone, whatever way they take. A real server, real callers."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vmmr import wire
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc

from search_svc.building.build import IndexSpec
from search_svc.index.base import VersionBase
from search_svc.index.journal import Journal
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.version import IndexVersion
from search_svc.index.writes import Add, Delete
from search_svc.serving import gallery_service
from search_svc.serving.gallery_service import GalleryService
from svckit.batcher import Batcher
from svckit.errors import Reason, ServiceError
from tests.search_svc.journals import replayed
from tests.search_svc.live_index import MODEL, Index, build, stored, unit

TIMEOUT_S = 60
OURS, THEIRS = "acme rocket 2020", "lada_niva_1999"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


CALLERS = f"""
[caller.acme]
role = "enrol"
label_prefixes = ["acme ", "zenith "]

[caller.all]
role = "enrol"

[[token]]
caller = "acme"
sha256 = "{sha256("acme")}"

[[token]]
caller = "all"
sha256 = "{sha256("all")}"
"""


class Gallery:
    """The gallery, as a caller with this token sees it."""

    def __init__(self, channel, token):
        self._stub = gallery_pb2_grpc.GalleryServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    def add(self, **labels):
        items = [gallery_pb2.Item(item_id=name, label=label, batch_id="b") for name, label in labels.items()]
        request = gallery_pb2.AddItemsRequest(items=items, embeddings=wire.pack(MODEL, unit(len(items))))
        return self._stub.AddItems(request, metadata=self._metadata, timeout=TIMEOUT_S)

    def delete(self, *ids, **selector):
        if ids:
            selector["item_ids"] = gallery_pb2.ItemIds(item_ids=ids)
        request = gallery_pb2.DeleteItemsRequest(**selector)
        return self._stub.DeleteItems(request, metadata=self._metadata, timeout=TIMEOUT_S).deleted

    def labels(self):
        request = gallery_pb2.ListItemsRequest(page_size=100)
        items = self._stub.ListItems(request, metadata=self._metadata, timeout=TIMEOUT_S).items
        return {item.item_id: item.label for item in items if not item.item_id.startswith("photo ")}


@pytest.fixture(scope="module")
def started(module_spawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefixes")
    build(folder / "index", IndexSpec(), unit(4))
    (folder / "callers.toml").write_text(CALLERS)
    audit = folder / "audit.jsonl"
    server = module_spawn("--index", folder / "index", "--callers", folder / "callers.toml", "--audit-log", audit)
    return server.ready()["port"], audit


@pytest.fixture
def galleries(started, connect):
    """The galleries of both, with an item of each in them."""
    channel = connect(started[0])
    acme, everybody = Gallery(channel, "acme"), Gallery(channel, "all")
    everybody.delete(*everybody.labels(), "none")
    everybody.add(ours=OURS, theirs=THEIRS)
    return acme, everybody


def refused(label):
    def check(error):
        info = error_details_pb2.ErrorInfo()
        assert any(detail.Unpack(info) for detail in rpc_status.from_call(error).details)
        told = (error.code(), info.reason, info.metadata["label"])
        return told == (grpc.StatusCode.PERMISSION_DENIED, "LABEL_NOT_ALLOWED", label)

    return pytest.raises(grpc.RpcError, check=check)


@pytest.mark.parametrize(
    ("attempt", "label"),
    [
        (lambda gallery: gallery.add(new=THEIRS), THEIRS),
        (lambda gallery: gallery.add(new=OURS, another="acmeville one 2020"), "acmeville one 2020"),
        (lambda gallery: gallery.add(theirs=OURS), THEIRS),
        (lambda gallery: gallery.delete("theirs"), THEIRS),
        (lambda gallery: gallery.delete("ours", "theirs"), THEIRS),
        (lambda gallery: gallery.delete(label=THEIRS), THEIRS),
        (lambda gallery: gallery.delete(label="of_nobody_1999"), "of_nobody_1999"),
        (lambda gallery: gallery.delete(batch_id="b"), THEIRS),
        (lambda gallery: gallery.delete("photo 0"), "honda_civic_2005"),
    ],
    ids=[
        "add",
        "add both",
        "replace",
        "delete",
        "delete both",
        "by label",
        "by an unknown label",
        "by batch",
        "of the version",
    ],
)
def test_another_s_label_is_refused_by_name_and_nothing_is_written(galleries, started, attempt, label):
    acme, _ = galleries
    noted = len(started[1].read_text().splitlines())
    with refused(label):
        attempt(acme)
    assert acme.labels() == {"ours": OURS, "theirs": THEIRS}
    (line,) = map(json.loads, started[1].read_text().splitlines()[noted:])
    assert (line["caller"], line["reason"], line["details"]) == ("acme", "LABEL_NOT_ALLOWED", {"label": label})


def test_its_own_labels_are_added_replaced_and_deleted_and_noted(galleries, started):
    acme, _ = galleries
    noted = len(started[1].read_text().splitlines())
    added = acme.add(ours="zenith star 1999", new=OURS)
    assert (added.added, added.replaced) == (1, 1)
    assert acme.delete("new", "none") == 1
    assert acme.delete(label="zenith star 1999") == 1
    lines = [json.loads(line) for line in started[1].read_text().splitlines()[noted:]]
    assert [(line["caller"], line["outcome"], line.get("deleted")) for line in lines] == [
        ("acme", "OK", None),
        ("acme", "OK", 1),
        ("acme", "OK", 1),
    ]
    assert lines[0]["journal_sequence"] == added.journal_sequence
    assert lines[1]["journal_sequence"] == added.journal_sequence + 1


@pytest.mark.parametrize(
    "selector",
    [{"item_ids": gallery_pb2.ItemIds(item_ids=["theirs", "ours", "none"])}, {"batch_id": "b"}, {"label": OURS}],
    ids=["by ids", "by batch", "by label"],
)
def test_a_deletion_is_noted_with_the_items_and_the_labels_that_went(galleries, started, selector):
    _, everybody = galleries
    everybody.delete(**selector)
    line = json.loads(started[1].read_text().splitlines()[-1])
    wanted = {"label": [OURS]}.get(next(iter(selector)), [OURS, THEIRS])
    assert (line["caller"], sorted(line["labels"]), line["labels_in_all"]) == ("all", sorted(wanted), len(wanted))
    gone = {"label": ["ours"], "batch_id": ["ours", "theirs"], "item_ids": ["none", "ours", "theirs"]}
    assert sorted(line["item_ids"]) == gone[next(iter(selector))]


def test_an_item_that_another_takes_the_place_of_is_noted_with_its_label(galleries, started):
    _, everybody = galleries
    everybody.add(theirs=OURS, new=OURS)
    line = json.loads(started[1].read_text().splitlines()[-1])
    assert (line["item_ids"], line["labels"], line["replaced"]) == (["theirs", "new"], [OURS], 1)
    assert (line["replaced_ids"], line["replaced_labels"]) == (["theirs"], [THEIRS])
    everybody.add(theirs=OURS)
    assert "replaced_ids" not in json.loads(started[1].read_text().splitlines()[-1])


async def test_a_deletion_in_several_writes_makes_none_if_one_may_not_be(tmp_path, monkeypatch):
    """Writes of many items are split, so that others come between; what is refused must not be half done."""
    monkeypatch.setattr(gallery_service, "_DELETED_AT_ONCE", 1)
    build(tmp_path, IndexSpec(), unit(4))
    for name, label in (("a", OURS), ("b", OURS), ("c", THEIRS)):
        Index(tmp_path)._commit(Add({name: dataclasses.replace(stored(label, unit(1)[0]), batch_id="b")}))
    version = IndexVersion.open(tmp_path)
    writer = JournalWriter(tmp_path, lambda: VersionBase(version))
    gallery = SimpleNamespace(view=SimpleNamespace(opened=SimpleNamespace(version=version)))
    with Journal.open(tmp_path) as journal:
        async with Batcher(writer.commit, max_batch=8, max_queue=100) as batcher:
            service = GalleryService(tmp_path, gallery, journal, batcher, None, on_write=lambda: None)
            with pytest.raises(ServiceError) as caught:
                await service._delete(Delete(batch_id="b", label_prefixes=("acme ",)))
            assert caught.value.reason is Reason.LABEL_NOT_ALLOWED
            assert replayed(tmp_path).keys() == {"a", "b", "c"}
            done = await service._delete(Delete(label=OURS, label_prefixes=("acme ",)))
    writer.close()
    assert (done.deleted, done.gone) == (2, {"a": OURS, "b": OURS})
    assert replayed(tmp_path).keys() == {"c"}
