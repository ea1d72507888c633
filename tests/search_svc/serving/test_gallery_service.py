"""GalleryService in real server processes."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vmmr import wire
from vmmr.embedding.v1 import embedding_pb2
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from search_svc.building.build import IndexSpec
from search_svc.index.base import VersionBase
from search_svc.index.index_dir import BuildRunningError, only_builder, version_path
from search_svc.index.journal import Journal
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.version import IndexVersion
from search_svc.index.version_lease import VersionLease
from search_svc.index.writes import Add, Delete
from search_svc.serving import gallery_service, item_reader
from search_svc.serving.gallery_service import GalleryService
from search_svc.voting.labels import parse
from svckit.batcher import Batcher
from svckit.errors import Reason, ServiceError
from tests.search_svc.building.test_compaction import STOPPING, STOPS, base_of
from tests.search_svc.builds import build_version
from tests.search_svc.journals import replayed
from tests.search_svc.live_index import Index, stored

D = 16
MODEL = "c0ffee" + 58 * "0"
TIMEOUT_S = 60
ROOT = Path(__file__).parents[3]
Item, Filter = gallery_pb2.Item, search_pb2.Filter
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def unit(rows, seed=1, dimension=D):
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Client:
    """Calls of both services at a port."""

    def __init__(self, channel):
        self.gallery = gallery_pb2_grpc.GalleryServiceStub(channel)
        self.search = search_pb2_grpc.SearchServiceStub(channel)

    def add(self, items, vectors, model=MODEL):
        request = gallery_pb2.AddItemsRequest(items=items, embeddings=wire.pack(model, vectors))
        return self.gallery.AddItems(request, timeout=TIMEOUT_S)

    def delete(self, *ids, **selector):
        if ids:
            selector["item_ids"] = gallery_pb2.ItemIds(item_ids=ids)
        return self.gallery.DeleteItems(gallery_pb2.DeleteItemsRequest(**selector), timeout=TIMEOUT_S)

    def get(self, item_id):
        return self.gallery.GetItem(gallery_pb2.GetItemRequest(item_id=item_id), timeout=TIMEOUT_S).item

    def list(self, **request):
        """Ids, page by page."""
        pages, token = [], ""
        while not pages or token:
            page = self.gallery.ListItems(gallery_pb2.ListItemsRequest(**request, page_token=token), timeout=TIMEOUT_S)
            pages.append([item.item_id for item in page.items])
            token = page.next_page_token
        return pages

    def nearest(self, vector, sequence=0, k=1):
        options = search_pb2.SearchOptions(k=k, min_sequence=sequence)
        request = search_pb2.SearchRequest(queries=wire.pack(MODEL, vector[None]), options=options)
        return self.search.Search(request, timeout=TIMEOUT_S).results[0].neighbours

    def compact(self):
        return self.gallery.Compact(gallery_pb2.CompactRequest(), timeout=TIMEOUT_S)

    def versions(self):
        return self.gallery.ListVersions(gallery_pb2.ListVersionsRequest(), timeout=TIMEOUT_S)


def item(item_id, label="lada_niva_1999", **fields):
    return Item(item_id=item_id, label=label, **fields)


@contextlib.contextmanager
def refused(code, reason, *violations):
    with pytest.raises(grpc.RpcError) as caught:
        yield caught
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(info)
        detail.Unpack(bad)
    assert (caught.value.code(), info.reason) == (code, reason), caught.value
    found = [(each.field, each.reason) for each in bad.field_violations]
    assert found == [each if isinstance(each, tuple) else (each, reason) for each in violations]


@pytest.fixture(scope="module")
def built(build_index, tmp_path_factory):
    made = build_index(unit(60, seed=0), directory=tmp_path_factory.mktemp("built"), spec=IndexSpec(shards=2))
    return made.path.parents[1]


@pytest.fixture
def index(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


@pytest.fixture
def serve(spawn, connect):
    def start(index, *flags):
        process = spawn("--index", index, *flags)
        return process, Client(connect(process.ready()["port"]))

    return start


@pytest.fixture(scope="module")
def shared(built, tmp_path_factory, module_spawn, module_connect):
    """A server for tests that write nothing, or what no other looks at."""
    index = shutil.copytree(built, tmp_path_factory.mktemp("shared") / "index")
    return Client(module_connect(module_spawn("--index", index).ready()["port"]))


class TestWrites:
    def test_the_next_query_knows_what_was_added_and_no_more_what_was_deleted(self, index, serve):
        _, client = serve(index)
        (vector,) = unit(1)
        added = client.add([item("new", uri="new.jpg")], vector[None])
        assert (added.added, added.replaced, added.unchanged, added.journal_sequence) == (1, 0, 0, 1)
        (found,) = client.nearest(vector, added.journal_sequence)
        assert (found.item_id, found.label.label, found.label.make, found.uri) == (
            "new",
            "lada_niva_1999",
            "lada",
            "new.jpg",
        )
        deleted = client.delete("new", "photo 1.jpg", "nobody")
        assert (deleted.deleted, deleted.journal_sequence) == (2, 3)
        everything = [each.item_id for each in client.nearest(vector, deleted.journal_sequence, k=1000)]
        assert sorted(everything) == sorted(f"photo {row}.jpg" for row in range(60) if row != 1)

    def test_the_same_call_again_changes_nothing_and_says_so(self, index, serve):
        _, client = serve(index)
        client.add([item("a"), item("b")], unit(2))
        again = client.add([item("a"), item("b", uri="x")], unit(2))
        assert (again.added, again.replaced, again.unchanged, again.journal_sequence) == (0, 1, 1, 3)

    def test_a_label_is_the_same_in_either_form_of_unicode(self, shared):
        nfc, nfd = "citro\u00ebn_c4_2011", "citroe\u0308n_c4_2011"
        added = shared.add([item("nfd", nfd), item("nfc", nfc)], unit(2))
        assert (shared.get("nfd").label, shared.get("nfc").label) == (nfc, nfc)
        found = shared.nearest(unit(2)[0], added.journal_sequence)
        assert (found[0].item_id, found[0].label.label) == ("nfd", nfc)
        for label in (nfc, nfd):
            assert shared.list(filter=Filter(labels=[label])) == [["nfc", "nfd"]]
        assert shared.delete(label=nfd).deleted == 2
        assert shared.delete(label=nfd).deleted == 0

    @pytest.mark.parametrize("label", ["___", "bad label/..", "a\u202eb"])
    def test_what_can_be_no_label_is_refused(self, shared, label):
        with refused(INVALID, "INVALID_ITEM", "items[0].label"):
            shared.add([item("a", label)], unit(1))

    def test_labels_of_older_galleries_are_found_in_either_form_of_unicode(self, tmp_path, serve):
        nfc, nfd = "citro\u00ebn_c4_2011", "citroe\u0308n_c4_2011"
        photos = [f"photo {row}.jpg" for row in range(10)]
        index = build_version(
            tmp_path / "old",
            embeddings=unit(10, seed=0),
            item_ids=photos,
            labels=[parse(nfd if row % 2 else "lada_niva_1999") for row in range(10)],
            uris=photos,
            model=MODEL,
            model_name="test",
            spec=IndexSpec(),
        ).path.parents[1]
        Index(index).add(written=(nfd, unit(1)[0]))
        _, client = serve(index)
        assert client.get("written").label == client.get("photo 1.jpg").label == nfc
        assert len(client.list(filter=Filter(labels=[nfc]))[0]) == 6
        assert client.delete(label=nfc).deleted == 6

    async def test_many_of_a_label_are_deleted_in_parts_between_which_others_write(self, index, monkeypatch):
        """Whatever waits when a part is on the disk comes before the next one."""
        monkeypatch.setattr(gallery_service, "_DELETED_AT_ONCE", 2)
        base, (vector,) = base_of(index), unit(1)
        Index(index).add(**{"photo 0.jpg": ("lada_niva_1999", vector), "new": ("make_model 0_2000", vector)})
        of_label = {item_id for item_id, each in base.items.items() if each.label == "make_model 0_2000"}
        meant = of_label - {"photo 0.jpg"} | {"new"}
        others = iter([f"other {n}" for n in range(100)])
        batches = []

        def commit(writes):
            batches.append(writes)
            if isinstance(writes[0], Delete):
                asyncio.run_coroutine_threadsafe(queued(), loop).result()
            return writer.commit(writes)

        async def queued():
            coming.append(
                asyncio.ensure_future(batcher.submit([Add({next(others): stored("lada_niva_1999", vector)})]))
            )
            await asyncio.sleep(0)
            assert batcher.waiting == 1

        loop, coming, writer = asyncio.get_running_loop(), [], JournalWriter(index, lambda: VersionBase(version))
        version = IndexVersion.open(index)
        gallery = SimpleNamespace(view=SimpleNamespace(opened=SimpleNamespace(version=version)))
        with Journal.open(index) as journal:
            async with Batcher(commit, max_batch=1, max_queue=8) as batcher:
                service = GalleryService(index, gallery, journal, batcher, None, on_write=lambda: None)
                request = gallery_pb2.DeleteItemsRequest(label="make_model 0_2000")
                done = await service.DeleteItems(request, SimpleNamespace(time_remaining=lambda: None))
                await asyncio.gather(*coming)
        writer.close()
        assert [type(write).__name__ for (write,) in batches] == ["Delete", "Add", "Delete", "Add"]
        assert [len(write.only) for (write,) in batches if isinstance(write, Delete)] == [2, 2]
        assert done.deleted == len(meant)
        found = replayed(index, base)
        assert {item_id for item_id in found if item_id in of_label | {"new"}} == of_label - meant == {"photo 0.jpg"}
        assert not [item_id for item_id, each in found.items() if each.label == "make_model 0_2000"]

    def test_by_label_and_by_batch_the_version_s_items_are_deleted_too(self, index, serve):
        _, client = serve(index)
        client.add([item("a", batch_id="may"), item("b", "make_model 0_2000", batch_id="may"), item("c")], unit(3))
        named = {each for (page,) in [client.list()] for each in page}
        assert client.delete(label="make_model 0_2000").deleted == 1 + sum(
            row % 7 == 0 and row % 3 == 0 for row in range(60)
        )
        assert client.delete(batch_id="may").deleted == 1
        assert len(named) - 5 == len(client.list()[0])
        client.compact()
        assert client.delete(batch_id="may").deleted == 0
        client.add([item("d", batch_id="june")], unit(1))
        client.compact()
        assert client.delete(batch_id="june").deleted == 1

    def test_are_there_after_a_kill_and_a_restart(self, index, serve):
        process, client = serve(index)
        client.add([item("new", attributes={"dealer": "7"}, batch_id="may")], unit(1))
        process.popen.kill()
        process.wait()
        _, client = serve(index)
        assert client.get("new") == item("new", attributes={"dealer": "7"}, batch_id="may")
        assert client.nearest(unit(1)[0])[0].item_id == "new"

    def test_of_concurrent_callers_are_committed_together(self, index, serve):
        _, client = serve(index)
        vectors = unit(200)
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda n: client.add([item(str(n))], vectors[n : n + 1]), range(200)))
        assert sorted(reply.journal_sequence for reply in replies) == list(range(1, 201))
        assert len(client.list(page_size=10000)[0]) == 260


class TestItems:
    def test_are_listed_by_id_in_pages_whatever_holds_them(self, index, serve):
        _, client = serve(index)
        client.add([item("photo 10.jpg"), item("a"), item("photo 9.jpg!"), item("zz")], unit(4))
        client.delete("photo 0.jpg", "photo 59.jpg")
        names = {f"photo {row}.jpg" for row in range(1, 59)} | {"a", "photo 9.jpg!", "zz"}
        pages = client.list(page_size=7)
        assert flat(pages) == sorted(names)
        assert {len(page) for page in pages[:-1]} == {7}
        assert client.get("photo 10.jpg").label == "lada_niva_1999"

    def test_are_filtered_by_label_and_batch(self, index, serve):
        _, client = serve(index)
        client.add([item("a", batch_id="may"), item("b"), item("c", "honda_pilot_2011", batch_id="may")], unit(3))
        assert client.list(filter=Filter(makes=["Lada"])) == [["a", "b"]]
        assert client.list(batch_id="may") == [["a", "c"]]
        assert client.list(batch_id="may", filter=Filter(min_year=2000)) == [["c"]]
        client.compact()
        assert client.list(filter=Filter(makes=["lada"]), batch_id="may") == [["a"]]
        assert client.list(batch_id="never") == [[]]
        with refused(INVALID, "UNKNOWN_FILTER_VALUE", "filter.makes"):
            client.list(filter=Filter(makes=["trabant"]))

    def test_that_are_not_there_are_not_found(self, shared):
        with refused(grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND"):
            shared.get("nobody")


def flat(pages):
    return [item_id for page in pages for item_id in page]


LONG = 513 * "x"
CAR = embedding_pb2.Cut(left=0.25, top=0.1, right=0.75, bottom=1, car_score=0.875)
NO_CAR = embedding_pb2.Cut(right=1, bottom=1, no_car_found=True)


class TestCuts:
    """The parts of photos that embeddings are of."""

    def test_are_kept_with_the_items_through_a_restart_and_a_compaction_and_counted(self, index, serve):
        cuts = {"a": CAR, "b": NO_CAR, "c": None, "d": embedding_pb2.Cut(right=0.5, bottom=1)}
        server, client = serve(index)
        client.add([item(name, cut=cut) for name, cut in cuts.items()], unit(4))
        counts = search_pb2.CutCounts(car=1, no_car_found=1, given=1, unknown=61)

        def told(client):
            found = {name: client.get(name) for name in cuts}
            return {name: each.cut if each.HasField("cut") else None for name, each in found.items()}

        def counted(client):
            return client.search.GetIndex(search_pb2.GetIndexRequest(), timeout=TIMEOUT_S).index

        client.nearest(unit(1)[0], sequence=4)
        assert (told(client), counted(client).cuts) == (cuts, counts)
        server.popen.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        _, client = serve(index)
        assert (told(client), counted(client).cuts) == (cuts, counts)
        client.compact()
        assert (told(client), counted(client).cuts, counted(client).delta_items) == (cuts, counts, 0)
        page = client.gallery.ListItems(gallery_pb2.ListItemsRequest(page_size=2), timeout=TIMEOUT_S)
        assert [each.cut for each in page.items] == [CAR, NO_CAR]
        client.delete("a", "d")
        client.nearest(unit(1)[0], sequence=6)
        assert counted(client).cuts == search_pb2.CutCounts(no_car_found=1, unknown=61)

    def test_the_same_item_cut_another_way_replaces_it(self, index, serve):
        _, client = serve(index)
        assert client.add([item("a", cut=CAR)], unit(1)).added == 1
        assert client.add([item("a", cut=CAR)], unit(1)).unchanged == 1
        assert client.add([item("a")], unit(1)).replaced == 1
        assert not client.get("a").HasField("cut")


class TestBadInput:
    @pytest.mark.parametrize(
        ("items", "violations"),
        [
            ([], ["items"]),
            ([item("")], ["items[0].item_id"]),
            ([item(LONG), item("b", "")], ["items[0].item_id", "items[1].label"]),
            ([item("a", LONG)], ["items[0].label"]),
            ([item("a", uri=2049 * "x"), item("b", batch_id=LONG)], ["items[0].uri", "items[1].batch_id"]),
            ([item("a", attributes={str(n): "" for n in range(33)})], ["items[0].attributes"]),
            ([item("a", attributes={"name": LONG})], ["items[0].attributes['name']"]),
            ([item("a"), item("b"), item("a")], ["items[2].item_id"]),
            ([item("a\nb", "honda\x7f")], ["items[0].item_id", "items[0].label"]),
            ([item("a", cut=CAR), item("b", cut=embedding_pb2.Cut())], ["items[1].cut"]),
            ([item("a", cut=embedding_pb2.Cut(right=1, bottom=1, car_score=2))], ["items[0].cut"]),
        ],
    )
    def test_items_are_refused_with_every_fault(self, shared, items, violations):
        with refused(INVALID, "INVALID_ITEM", *violations):
            shared.add(items, unit(len(items)))
        assert len(shared.list()[0]) == 60

    @pytest.mark.parametrize(
        ("vectors", "violation"),
        [
            (unit(2), ("embeddings.data", "MALFORMED_EMBEDDINGS")),
            (unit(1, dimension=D + 1), ("embeddings.dimension", "DIMENSION_MISMATCH")),
            (np.full((1, D), np.nan), ("embeddings.data", "MALFORMED_EMBEDDINGS")),
            (np.full((1, D), 1e5), ("embeddings.data", "MALFORMED_EMBEDDINGS")),
            (np.zeros((1, D)), ("embeddings.data", "MALFORMED_EMBEDDINGS")),
        ],
    )
    def test_embeddings_are_refused(self, shared, vectors, violation):
        with refused(INVALID, violation[1], violation):
            shared.add([item("a")], vectors)

    def test_of_items_and_embeddings_at_once_all_is_told(self, shared):
        with refused(
            INVALID,
            "MALFORMED_EMBEDDINGS",
            ("embeddings.data", "MALFORMED_EMBEDDINGS"),
            ("items[0].item_id", "INVALID_ITEM"),
        ):
            shared.add([item("")], unit(3))

    def test_another_model_s_embeddings_are_refused(self, shared):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_MISMATCH"):
            shared.add([item("a")], unit(1), model="f" * 64)
        with refused(
            INVALID, "DIMENSION_MISMATCH", ("embeddings.dimension", "DIMENSION_MISMATCH"), ("items", "INVALID_ITEM")
        ):
            shared.gallery.AddItems(
                gallery_pb2.AddItemsRequest(embeddings=embedding_pb2.Embeddings()), timeout=TIMEOUT_S
            )

    def test_deletions_of_nothing_in_particular_are_refused(self, shared):
        for selector, field in (
            ({}, "selector"),
            ({"item_ids": gallery_pb2.ItemIds()}, "item_ids.item_ids"),
            ({"item_ids": gallery_pb2.ItemIds(item_ids=["a", ""])}, "item_ids.item_ids[1]"),
            ({"label": ""}, "label"),
            ({"batch_id": ""}, "batch_id"),
        ):
            with refused(INVALID, "INVALID_ITEM", field):
                shared.delete(**selector)

    def test_pages_that_cannot_be(self, shared):
        for request, field in (({"page_size": 0}, "page_size"), ({"page_size": 10001}, "page_size")):
            with refused(INVALID, "INVALID_PAGE", field):
                shared.list(**request)
        with refused(INVALID, "INVALID_PAGE", "page_token"):
            shared.gallery.ListItems(gallery_pb2.ListItemsRequest(page_token="never"), timeout=TIMEOUT_S)


class TestCompaction:
    def test_answers_when_the_new_version_is_served(self, index, serve):
        process, client = serve(index)
        added = client.add([item("new")], unit(1))
        made = client.compact()
        assert (made.index_version, made.items, made.journal_sequence) == ("000002", 61, 1)
        reply = client.search.Search(search_pb2.SearchRequest(queries=wire.pack(MODEL, unit(1))), timeout=TIMEOUT_S)
        assert (reply.provenance.index_version, reply.results[0].neighbours[0].item_id) == ("000002", "new")
        assert reply.provenance.journal_sequence == added.journal_sequence
        listed = client.versions()
        assert [(each.index_version, each.items, each.current) for each in listed.versions] == [
            ("000001", 60, False),
            ("000002", 61, True),
        ]
        assert (listed.journal_sequence, listed.journal_depth) == (1, 0)
        (index / "journal.db.damaged-20261128T000000").write_bytes(bytes(10**6))
        assert client.versions().journal_bytes == sum(
            (index / f"journal.db{suffix}").stat().st_size for suffix in ("", "-wal", "-shm")
        )
        assert process.popen.poll() is None

    def test_answers_with_all_that_was_written_before_it_although_one_was_stopped(self, index, serve):
        Index(index).add(early=("lada_niva_1999", unit(1, seed=2)[0]))
        subprocess.run([sys.executable, "-c", STOPPING, index, STOPS["after the shards"]], check=False, cwd=ROOT)
        assert (index / "versions/.draft").is_dir()
        _, client = serve(index)
        last = client.add([item(str(n)) for n in range(20)], unit(20)).journal_sequence
        made = client.compact()
        assert (made.journal_sequence, made.items) == (last, 81)
        assert client.versions().journal_depth == 0

    async def test_that_another_version_outran_is_no_success(self, index):
        """It is current, and served, and lacks what was written before the call."""
        Index(index).add(early=("lada_niva_1999", unit(1, seed=2)[0]))
        view = SimpleNamespace(manifest=IndexVersion.open(index).manifest, sequence=1)

        class Compactor:
            async def compact(self):
                """As if somebody had rolled back just then."""

        with Journal.open(index) as journal:
            service = GalleryService(
                index, SimpleNamespace(view=view), journal, object(), Compactor(), on_write=lambda: None
            )
            with pytest.raises(ServiceError, match="000001 is current, and holds the journal to 0, not to 1") as caught:
                await service.Compact(gallery_pb2.CompactRequest(), SimpleNamespace(time_remaining=lambda: None))
        assert caught.value.reason is Reason.COMPACTION_FAILED

    def test_with_nothing_written_answers_with_the_version_that_is_served(self, index, serve):
        _, client = serve(index)
        assert client.compact().index_version == "000001"

    def test_is_refused_while_another_builds(self, index, serve):
        _, client = serve(index)
        client.add([item("new")], unit(1))
        with only_builder(index), refused(grpc.StatusCode.FAILED_PRECONDITION, "COMPACTION_RUNNING"):
            client.compact()
        assert client.compact().index_version == "000002"

    def test_that_fails_says_why_and_serving_goes_on(self, index, serve):
        _, client = serve(index)
        client.add([item("new")], unit(1))
        client.delete("new", *(f"photo {row}.jpg" for row in range(60)))
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "COMPACTION_FAILED") as caught:
            client.compact()
        assert "every item was deleted, and an index of none cannot be built" in caught.value.details()
        assert list(client.nearest(unit(1)[0], 62)) == []

    def test_begins_by_itself_when_much_was_written_and_old_versions_go(self, index, serve):
        process, client = serve(index, "--compact-at", "20", "--keep-versions", "1")
        # Held, so that the compaction itself, whose last step it is, cannot remove it: the server has to.
        held = VersionLease(version_path(index, "000001"))
        client.add([item(str(n)) for n in range(20)], unit(20))
        process.first("switched version")
        process.first("compacted")
        assert client.versions().journal_depth == 0
        assert len(client.versions().versions) == 2
        held.release()
        assert process.first("removed versions")["versions"] == ["000001"]
        assert [each.index_version for each in client.versions().versions] == ["000002"]
        assert client.nearest(unit(20)[3])[0].item_id == "3"

    def test_ends_with_the_server_that_began_it(self, index, serve, run, connect, tmp_path):
        for name, text in {"python": HELD_COMPACTION, "server.py": SERVER_OF_ANOTHER_PYTHON}.items():
            (tmp_path / name).write_text(f"#!{sys.executable}\n{text}")
            (tmp_path / name).chmod(0o700)
        flags = ("--index", index, "--port", 0, "--drain-pause-s", 0)
        process = run(tmp_path / "server.py", tmp_path / "python", "serve", *flags, env={"PYTHONPATH": str(ROOT)})
        client = Client(connect(process.ready()["port"]))
        client.add([item("new")], unit(1))
        call = client.gallery.Compact.future(gallery_pb2.CompactRequest(), timeout=TIMEOUT_S)
        until(lambda: is_built(index))
        process.popen.kill()
        process.wait()
        assert call.exception() is not None
        until(lambda: not is_built(index))
        _, client = serve(index)
        assert client.get("new").item_id == "new"
        assert client.compact().items == 61


HELD_COMPACTION = """
import sys, threading
from search_svc.__main__ import main
from search_svc.building import build
build.copy_embeddings = lambda *_, **__: threading.Event().wait()
del sys.argv[1:3]  # -m search_svc
main()
"""
"""Stands for Python, and never ends what it is to do if that is a compaction."""
SERVER_OF_ANOTHER_PYTHON = """
import sys
from search_svc.__main__ import main
sys.executable = sys.argv.pop(1)
main()
"""


def is_built(index):
    """Whether a process builds a version of the index."""
    try:
        with only_builder(index):
            return False
    except BuildRunningError:
        return True


def until(condition):
    """Wait for what other processes do."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class TestDisk:
    def test_a_read_only_server_serves_reads_and_refuses_writes_with_the_reason(self, index, serve):
        _, writer = serve(index)
        _, reader = serve(index, "--read-only")
        sequence = writer.add([item("new")], unit(1)).journal_sequence
        assert reader.nearest(unit(1)[0], sequence)[0].item_id == "new"
        assert reader.get("new").item_id == "new"
        for call in (lambda: reader.add([item("x")], unit(1)), lambda: reader.delete("new"), reader.compact):
            with refused(grpc.StatusCode.UNAVAILABLE, "JOURNAL_UNWRITABLE") as caught:
                call()
            assert "--read-only" in caught.value.details()

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk takes root")
    def test_a_read_only_folder_serves_reads_and_refuses_writes_with_the_reason(self, index, serve, mount):
        process, client = serve(index)
        client.add([item("new")], unit(1))
        process.popen.send_signal(signal.SIGTERM)
        process.wait()
        mount("--bind", index, index)
        mount("-o", "remount,ro,bind", index)
        _, client = serve(index)
        assert client.nearest(unit(1)[0])[0].item_id == "new"
        with refused(grpc.StatusCode.UNAVAILABLE, "JOURNAL_UNWRITABLE"):
            client.add([item("x")], unit(1))
        assert client.get("new").item_id == "new"

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk takes root")
    def test_a_full_disk_refuses_writes_with_the_reason_until_there_is_room_and_loses_nothing(
        self, index, serve, mount, tmp_path
    ):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount("-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk)
        process, client = serve(shutil.copytree(index, disk / "index"))
        (disk / "ballast").write_bytes(bytes(400_000))
        acknowledged, batch = [], [item(f"{{}} {n}", uri=2000 * "u") for n in range(20)]
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "JOURNAL_FULL") as caught:
            for number in range(1000):
                done = client.add(
                    [item(f"{number} {n}", uri=2000 * "u") for n in range(len(batch))], unit(20, seed=100 + number)
                )
                acknowledged += [f"{number} {n}" for n in range(20)]
        assert "the disk of journal.db is full: nothing was written" in caught.value.details()
        assert acknowledged
        assert client.nearest(unit(20, seed=100)[3], done.journal_sequence)[0].item_id == "0 3"
        (disk / "ballast").unlink()
        assert client.add([item("after")], unit(1)).added == 1
        process.popen.kill()
        process.wait()
        _, client = serve(disk / "index")
        assert set(flat(client.list(page_size=1000))) == {
            *(f"photo {row}.jpg" for row in range(60)),
            *acknowledged,
            "after",
        }

    def test_a_shard_that_is_gone_is_named_and_a_rollback_brings_everything_back(self, index, serve, spawn):
        process, client = serve(index)
        client.add([item("early")], unit(1))
        client.compact()
        client.add([item("late")], unit(1, seed=2))
        shard = index / "versions" / "000002" / "shard-001.faiss"
        shard.unlink()
        assert client.nearest(unit(1)[0])[0].item_id == "early"
        process.popen.kill()
        process.wait()
        broken = spawn("--index", index)
        assert f"{shard}: is missing" in broken.fatal()
        rolled = [sys.executable, "-m", "search_svc", "rollback", index]
        assert subprocess.run(rolled, check=True, capture_output=True, cwd=ROOT).stdout
        _, client = serve(index)
        assert client.get("early").item_id == client.nearest(unit(1)[0])[0].item_id == "early"
        assert client.nearest(unit(1, seed=2)[0])[0].item_id == "late"
        assert len(client.list()[0]) == 62

    def test_a_journal_that_cannot_be_read_stops_the_server_with_the_command_that_helps(self, index, spawn):
        (index / "journal.db").write_bytes(b"no database" * 1000)
        process = spawn("--index", index)
        said = process.fatal()
        assert said.startswith(f"{index}/journal.db: is damaged")
        assert f"`vmmr-search repair {index}`" in said


@pytest.fixture
def mount():
    """`mount` with arguments; unmounted, in reverse, when the test ends."""
    with contextlib.ExitStack() as stack:

        def do(*arguments):
            done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot mount here: {done.stderr.strip()}")
            if "remount,ro,bind" not in arguments:
                stack.callback(subprocess.run, ["umount", "-l", str(arguments[-1])], check=False)

        yield do


def test_another_writer_that_holds_the_journal_for_good_is_told_by_the_deadline(index, serve):
    _, client = serve(index)
    client.add([item("a")], unit(1))
    other = sqlite3.connect(index / "journal.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    request = gallery_pb2.AddItemsRequest(items=[item("b")], embeddings=wire.pack(MODEL, unit(1)))
    with pytest.raises(grpc.RpcError) as caught:
        client.gallery.AddItems(request, timeout=1)
    assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    other.execute("ROLLBACK")
    assert client.add([item("b")], unit(1)).added + client.add([item("c")], unit(1, seed=9)).added >= 1


async def test_many_items_are_read_beside_the_event_loop(tmp_path, monkeypatch):
    manifest = SimpleNamespace(model=MODEL, dimension=D, model_name="test")
    gallery = SimpleNamespace(view=SimpleNamespace(manifest=manifest))
    service = GalleryService(tmp_path, gallery, None, None, None, on_write=lambda: None)
    readers, read = [], item_reader.read_add
    monkeypatch.setattr(item_reader, "read_add", lambda *a: readers.append(threading.current_thread()) or read(*a))
    for count in (16, 17):
        items = [item(str(n)) for n in range(count)]
        request = gallery_pb2.AddItemsRequest(items=items, embeddings=wire.pack(MODEL, unit(count)))
        with pytest.raises(ServiceError, match="--read-only"):
            await service.AddItems(request, SimpleNamespace(time_remaining=lambda: None))
    assert [reader is threading.current_thread() for reader in readers] == [True, False]
