"""A gallery that follows its index: its journal, its versions, and what becomes of both."""

import asyncio
import gc
import importlib.util
import shutil
import sqlite3
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from vmmr.gallery.v1 import gallery_pb2

from search_svc.building.build import IndexSpec
from search_svc.building.compaction import compact
from search_svc.engine.local import LocalEngine
from search_svc.index.index_dir import make_current, version_path
from search_svc.index.journal import Journal
from search_svc.index.retention import roll_back
from search_svc.index.version import IndexVersion
from search_svc.index.version_lease import exclusive_version
from search_svc.live.following import Follower, Replay
from search_svc.live.live_gallery import LiveGallery
from search_svc.live.opening import Opener, warm
from search_svc.live.view import View
from search_svc.serving.gallery_service import GalleryService
from svckit.errors import Reason, ServiceError

_found = importlib.util.spec_from_file_location("live_index", Path(__file__).parents[1] / "live_index.py")
live_index = importlib.util.module_from_spec(_found)
_found.loader.exec_module(live_index)
Index, build, unit = live_index.Index, live_index.build, live_index.unit

TIMEOUT_S = 30
GALLERY = unit(40, seed=0)


class Following:
    """A follower over an index of GALLERY."""

    def __init__(self, path):
        self.index = Index(path, lambda: self.view.opened.version)
        self.opener = Opener(path, LocalEngine.open, max_k=100)
        self.journal = Journal.open(path)
        replay = Replay(self.opener.current(), self.journal)
        replay.finish()
        self.open = self.opener.current
        self.follower = Follower(path, self.journal, replay, lambda: self.open())  # noqa: PLW0108 (tests change it)

    @property
    def view(self):
        return self.follower.gallery.view

    def start(self):
        self.follower.start()
        return self

    def stop(self):
        self.follower.stop()
        self.opener.close()
        self.journal.close()
        self.index.writer.close()

    def names(self, view=None):
        """Item ids of the gallery, by a search for all of it."""
        view = view or self.view
        found = view.search(
            GALLERY[:1],
            1000,
            params=view.manifest.search,
            labels=None,
            exact=True,
            timeout_s=None,
            allow_partial=False,
        )
        return sorted(view.items.take(found.hits.ids[0][found.hits.ids[0] >= 0].tolist())[0])


@pytest.fixture
def path(tmp_path):
    build(tmp_path / "index", IndexSpec("Flat", shards=2), GALLERY)
    return tmp_path / "index"


@pytest.fixture
def following(path):
    following = Following(path).start()
    yield following
    following.stop()


def until(condition):
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


PHOTOS = [f"photo {row}" for row in range(40)]


class TestJournal:
    def test_what_is_written_is_shown_and_what_is_deleted_is_not(self, following):
        assert following.names() == sorted(PHOTOS)
        following.index.add(new=("honda_pilot_2027", GALLERY[0]))
        sequence = following.index.delete("photo 3")
        until(lambda: following.view.sequence == sequence)
        assert following.names() == sorted({*PHOTOS, "new"} - {"photo 3"})
        assert (following.view.size, following.view.labels) == (40, 5)

    def test_a_write_is_shown_whole_or_not_at_all(self, following, monkeypatch):
        monkeypatch.setattr("search_svc.live.following._ENTRIES", 7)
        sizes, done = set(), threading.Event()

        def watch():
            while not done.is_set():
                sizes.add(following.view.size)

        watching = threading.Thread(target=watch)
        watching.start()
        for batch in range(5):
            last = following.index.add(**{f"new {batch} {row}": ("misc", GALLERY[row]) for row in range(20)})
        until(lambda: following.view.sequence == last)
        done.set()
        watching.join()
        assert sizes <= {40, 60, 80, 100, 120, 140}
        assert following.view.size == 140

    def test_what_was_written_before_the_start_is_there_from_the_start(self, path):
        last = Index(path).add(new=("misc", GALLERY[0]))
        following = Following(path)
        assert following.view.sequence == last
        assert "new" in following.names()
        following.start().stop()

    def test_a_follower_that_was_never_started_can_be_stopped(self, path):
        Following(path).stop()

    def test_the_same_item_written_over_and_over_does_not_pile_up(self, following, monkeypatch):
        monkeypatch.setattr("search_svc.live.delta._MOST_DEAD", 3)
        for row in range(40):
            last = following.index.add(new=("misc", GALLERY[row]), other=("misc", GALLERY[0]))
            until(lambda last=last: following.view.sequence == last)
        assert following.view.written.rows < 10
        assert following.names() == sorted([*PHOTOS, "new", "other"])

    def test_one_that_cannot_be_read_is_told_and_the_gallery_stays_until_it_can(self, following, path, monkeypatch):
        monkeypatch.setattr("search_svc.live.following._RETRY_S", 0.05)
        last = following.index.add(new=("misc", GALLERY[0]))
        until(lambda: following.view.sequence == last)
        with sqlite3.connect(path / "journal.db") as connection:
            connection.execute("UPDATE entries SET label = 'damage' WHERE sequence = ?", [last])
            connection.execute(
                "INSERT INTO entries SELECT sequence + 1, 'b', label, uri, batch_id, attributes, embedding, checksum, 1 FROM entries"
            )
        until(lambda: following.follower.problem)
        assert "journal.db: is damaged" in following.follower.problem
        assert following.view.sequence == last
        with sqlite3.connect(path / "journal.db") as connection:
            connection.execute("DELETE FROM entries WHERE sequence > ?", [last])
        until(lambda: not following.follower.problem)

    def test_an_embedding_that_does_not_fit_the_index_is_told_and_nothing_of_its_write_is_shown(self, following):
        following.index.add(good=("misc", GALLERY[0]), bad=("misc", np.ones(3)))
        until(lambda: following.follower.problem)
        assert "entry 2 ('bad') has an embedding of 6 bytes, those of the index have 16" in following.follower.problem
        assert following.names() == sorted(PHOTOS)


class TestVersions:
    def test_one_that_becomes_current_is_switched_to_and_holds_all_that_was_written(self, following, path):
        following.index.add(new=("honda_pilot_2027", GALLERY[0]), newer=("misc", GALLERY[1]))
        following.index.delete("photo 3", "newer")
        compact(path)
        last = following.index.add(late=("misc", GALLERY[2]))
        until(lambda: following.follower.switches and following.view.sequence == last)
        assert following.view.manifest.version == "000002"
        assert following.names() == sorted({*PHOTOS, "new", "late"} - {"photo 3"})
        assert following.view.written.live_items == 1
        assert following.follower.switches == 1

    def test_what_is_written_while_it_is_opened_is_shown_by_the_old_one_and_then_by_the_new(self, following, path):
        opening, go = threading.Event(), threading.Event()
        opened = following.opener.current

        def slow():
            found = opened()
            opening.set()
            assert go.wait(TIMEOUT_S)
            return found

        following.open = slow
        first = following.index.add(new=("misc", GALLERY[0]))
        compact(path)
        assert opening.wait(TIMEOUT_S)
        last = following.index.delete("new", "photo 1")
        until(lambda: following.view.sequence == last)
        assert following.view.manifest.version == "000001"
        assert last > first
        go.set()
        until(lambda: following.view.manifest.version == "000002")
        assert following.view.sequence == last
        assert following.names() == sorted({*PHOTOS} - {"photo 1"})

    def test_what_was_written_after_it_was_opened_is_in_it_when_it_is_shown(self, path):
        following = Following(path)  # not started: each step is taken here
        follower = following.follower
        following.index.add(new=("misc", GALLERY[0]))
        compact(path)
        follower._open_current()
        last = following.index.add(late=("misc", GALLERY[1]))
        follower._catch_up()
        assert (following.view.manifest.version, following.view.sequence) == ("000001", last)
        follower._switch()
        assert (following.view.manifest.version, following.view.sequence) == ("000002", last)
        assert following.names() == sorted([*PHOTOS, "new", "late"])
        following.start().stop()

    def test_the_one_before_can_be_gone_back_to_and_is_the_same_gallery(self, following, path):
        following.index.add(new=("misc", GALLERY[0]))
        compact(path)
        until(lambda: following.view.manifest.version == "000002")
        last = following.index.delete("photo 5")
        roll_back(path)
        until(lambda: following.view.manifest.version == "000001")
        assert following.view.sequence == last
        assert following.names() == sorted({*PHOTOS, "new"} - {"photo 5"})

    def test_one_that_was_left_is_closed_and_free_once_its_last_view_is_gone_and_not_before(self, following, path):
        gc.disable()
        try:
            following.index.add(new=("misc", GALLERY[0]))
            until(lambda: following.view.sequence)
            kept = following.view
            compact(path)
            until(lambda: following.view.manifest.version == "000002")
            with exclusive_version(version_path(path, "000001")) as free:
                assert not free
            assert "new" in following.names(kept)
            workers = kept.opened.engine._all_workers
            del kept

            def let_go():
                with exclusive_version(version_path(path, "000001")) as free:
                    return free

            until(let_go)
            assert all(worker.closed for worker in workers)
        finally:
            gc.enable()

    def test_a_damaged_one_is_told_and_the_gallery_goes_on_until_it_is_whole(self, following, path, monkeypatch):
        monkeypatch.setattr("search_svc.live.following._RETRY_S", 0.05)
        shutil.copytree(version_path(path, "000001"), version_path(path, "000009"))
        make_current(path, "000009")
        until(lambda: following.follower.problem)
        assert "version is '000001', but the directory is '000009'" in following.follower.problem
        last = following.index.add(new=("misc", GALLERY[0]))
        until(lambda: following.view.sequence == last)
        assert following.names() == sorted([*PHOTOS, "new"])
        make_current(path, "000001")
        until(lambda: not following.follower.problem)
        assert following.follower.switches == 0

    def test_the_one_that_is_served_is_not_switched_to_if_it_is_current_again_before_another_is_opened(
        self, following, path
    ):
        opening, go = threading.Event(), threading.Event()
        opened = following.opener.current

        def slow():
            opening.set()
            assert go.wait(TIMEOUT_S)
            return opened()

        following.open = slow
        make_current(path, "000009")
        assert opening.wait(TIMEOUT_S)
        make_current(path, "000001")
        go.set()
        until(lambda: not following.follower.opening)
        last = following.index.add(new=("misc", GALLERY[0]))
        until(lambda: following.view.sequence == last)
        assert following.follower.switches == 0
        assert following.names() == sorted([*PHOTOS, "new"])

    def test_one_whose_k_the_server_does_not_allow_is_told_and_not_served(self, following, path):
        build(path, IndexSpec("Flat", k=500), GALLERY)
        until(lambda: following.follower.problem)
        assert "--max-k (VMMR_SEARCH_MAX_K) must be >= 500" in following.follower.problem
        assert following.view.manifest.version == "000001"

    def test_what_was_written_with_another_model_is_not_laid_over_it(self, following, path):
        written = following.index.add(new=("misc", GALLERY[0]))
        until(lambda: following.view.sequence == written)
        build(path, IndexSpec("Flat"), GALLERY, model="f" * 64, drop_changes=True)
        until(lambda: following.view.manifest.version == "000002")
        late = Index(path, lambda: IndexVersion.open(path, "000001")).add(late=("misc", GALLERY[1]))
        until(lambda: following.follower.problem)
        assert "journal.db: is of another model (c0ffee" in following.follower.problem
        assert (following.view.sequence, following.names()) == (late - 1, sorted(PHOTOS))

    async def test_one_that_a_compaction_built_and_that_cannot_be_opened_is_told_to_who_waits_for_it(
        self, following, path
    ):
        opened, built = following.open, threading.Event()

        def lacking():
            assert built.wait(TIMEOUT_S)  # who builds it opens it, too
            (version_path(path, "000002") / "shard-000.faiss").unlink(missing_ok=True)
            return opened()

        class Compactor:
            async def compact(self):
                await asyncio.to_thread(compact, path)
                built.set()

        following.open = lacking
        following.index.add(new=("misc", GALLERY[0]))
        follower = following.follower
        journal = Journal(path / "journal.db")
        service = GalleryService(
            path, follower.gallery, journal, object(), Compactor(), on_write=None, unserved=follower.unserved
        )
        with pytest.raises(
            ServiceError, match=r"version 000002 is built and current, but .*shard-000\.faiss: is missing"
        ):
            await asyncio.wait_for(
                service.Compact(gallery_pb2.CompactRequest(), SimpleNamespace(time_remaining=lambda: None)), TIMEOUT_S
            )
        make_current(path, "000001")
        until(lambda: not follower.unserved("000002"))

    def test_one_that_cannot_be_shown_is_closed(self, following, path, monkeypatch):
        monkeypatch.setattr("search_svc.live.following._RETRY_S", 0.05)
        gc.disable()
        try:
            following.index.add(bad=("misc", np.ones(3)))
            opened, of = [], following.open

            def keeping():
                found = of()
                opened.append(weakref.ref(found))
                return found

            following.open = keeping
            build(path, IndexSpec("Flat"), GALLERY)
            until(lambda: len(opened) > 2)
            until(lambda: not opened[0]())
        finally:
            gc.enable()

    def test_without_current_what_is_written_is_shown_all_the_same(self, following, path):
        (path / "CURRENT").unlink()
        until(lambda: "CURRENT: missing" in following.follower.problem)
        last = following.index.add(new=("misc", GALLERY[0]))
        until(lambda: following.view.sequence == last)


class TestReaching:
    @pytest.fixture
    def gallery(self, path, monkeypatch):
        monkeypatch.setattr("search_svc.live.live_gallery.MOST_WAIT_S", TIMEOUT_S)
        opener = Opener(path, LocalEngine.open, max_k=100)
        yield LiveGallery(View(opener.current(), None, 5))
        opener.close()

    def later(self, gallery, sequence):
        gallery.show(View(gallery.view.opened, None, sequence))

    async def test_what_is_there_is_not_waited_for(self, gallery):
        await gallery.reach(0, None)
        await gallery.reach(5, time.monotonic() - 1)

    async def test_who_waits_goes_on_when_it_is_there_and_not_before(self, gallery):
        waiting = [asyncio.ensure_future(gallery.reach(sequence, None)) for sequence in (6, 8, 8)]
        await asyncio.sleep(0)
        await asyncio.to_thread(self.later, gallery, 7)
        await asyncio.wait_for(waiting[0], TIMEOUT_S)
        for _ in range(5):  # those who were woken with it have had their turn, too
            await asyncio.sleep(0)
        assert not any(each.done() for each in waiting[1:])
        await asyncio.to_thread(self.later, gallery, 8)
        await asyncio.wait_for(asyncio.gather(*waiting), TIMEOUT_S)

    async def test_a_view_that_is_shown_just_as_somebody_begins_to_wait_is_not_missed(self, gallery):
        lock = gallery._changing

        class Between:
            def __enter__(self):
                gallery._changing = lock
                gallery.show(View(gallery.view.opened, None, 6))
                lock.acquire()

            def __exit__(self, *_):
                lock.release()

        gallery._changing = Between()
        await gallery.reach(6, None)

    async def test_nobody_waits_past_the_deadline_or_for_ever(self, gallery, monkeypatch):
        with pytest.raises(ServiceError) as caught:
            await gallery.reach(6, time.monotonic() + 0.01)
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        monkeypatch.setattr("search_svc.live.live_gallery.MOST_WAIT_S", 0.01)
        with pytest.raises(ServiceError) as caught:
            await gallery.reach(6, None)
        assert caught.value.reason is Reason.SEQUENCE_NOT_REACHED
        assert caught.value.metadata == {"min_sequence": "6", "journal_sequence": "5"}

    async def test_a_caller_who_left_is_no_matter(self, gallery):
        waiting = asyncio.ensure_future(gallery.reach(6, None))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not gallery._waiting
        await asyncio.to_thread(self.later, gallery, 6)
        await gallery.reach(6, None)


def test_a_version_can_be_warmed_before_anybody_asks(path):
    opener = Opener(path, LocalEngine.open, max_k=100)
    opened = opener.current()
    found = []
    engine = SimpleNamespace(search=lambda *args: found.append(opened.engine.search(*args)))
    warm(SimpleNamespace(version=opened.version, engine=engine))
    assert [answered.hits.ids.shape for answered in found] == [(1, opened.version.manifest.k)]
    opener.close()
