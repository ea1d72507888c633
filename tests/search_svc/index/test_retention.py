"""Versions that cannot be read, for a moment or for good: what is not known is not taken for nothing."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from search_svc.building.build import IndexSpec
from search_svc.building.compaction import compact
from search_svc.index import locks, retention
from search_svc.index.index_dir import current, version_names
from search_svc.index.journal import Journal
from search_svc.index.retention import UnreadableVersionError, retire, roll_back, versions
from search_svc.index.version_lease import VersionLease
from search_svc.index.writes import Add
from svckit.artifact import ArtifactError
from tests.search_svc.building.test_compaction import base_of, grown, write
from tests.search_svc.journals import D, replayed, stored

ROOT = Path(__file__).parents[3]
LACKING = {"a shard": "shard-000.faiss", "the manifest": "manifest.json", "all of it": ""}


@pytest.fixture(scope="module")
def built(build_index, tmp_path_factory):
    vectors = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
    return build_index(vectors, directory=tmp_path_factory.mktemp("index"), spec=IndexSpec()).path.parents[1]


@pytest.fixture
def index(built, tmp_path):
    """Of three versions, the last two of which hold an entry of the journal more each."""
    index = shutil.copytree(built, tmp_path / "index")
    grown(index, 2)
    return index


def away(index, version, name):
    """Takes a file of a version away, or all of it; returns how it is put back."""
    path = index / "versions" / version / name
    aside = index / "aside"
    path.rename(aside)
    return lambda: aside.rename(path)


def pruned(index):
    with Journal.open(index) as journal:
        return journal.pruned


class TestWhileAVersionThatStaysCannotBeRead:
    @pytest.mark.parametrize("name", LACKING.values(), ids=LACKING)
    @pytest.mark.parametrize("keep", [1, 2, 3])
    def test_nothing_is_removed_nor_pruned(self, index, keep, name):
        gallery = replayed(index, base_of(index))
        roll_back(index, "000001")
        put_back = away(index, "000001", name)
        with pytest.raises(
            UnreadableVersionError, match=rf"version 000001 cannot be read \(.*000001/?{name}: .*nothing"
        ):
            retire(index, keep)
        put_back()
        assert version_names(index) == ["000001", "000002", "000003"]
        assert pruned(index) == 0
        for version in version_names(index):
            assert replayed(index, base_of(index, version)) == gallery

    def test_that_is_so_of_one_that_is_kept_beside_the_current_one_and_of_one_in_use(self, index):
        put_back = away(index, "000002", "items.arrow")
        with pytest.raises(UnreadableVersionError, match="version 000002"):
            retire(index, 2)
        held = VersionLease(index / "versions" / "000002")
        with pytest.raises(UnreadableVersionError, match="version 000002"):
            retire(index, 1)
        held.release()
        put_back()
        assert version_names(index) == ["000001", "000002", "000003"]
        assert retire(index, 2) == ["000001"]
        assert pruned(index) == 1

    def test_one_that_becomes_unreadable_while_others_are_removed_keeps_the_journal(self, index, monkeypatch):
        def removing(*arguments):
            away(index, "000003", "manifest.json")
            return remove(*arguments)

        remove = retention._remove
        monkeypatch.setattr(retention, "_remove", removing)
        with pytest.raises(UnreadableVersionError, match="version 000003"):
            retire(index, 2)
        assert pruned(index) == 0

    def test_a_version_with_a_flipped_bit_does_not_take_the_place_of_a_good_one(self, index):
        shard = index / "versions/000003/shard-000.faiss"
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
        roll_back(index, "000002")
        with pytest.raises(
            UnreadableVersionError, match=r"version 000003 is damaged \(.*shard-000\.faiss: .*nothing is removed"
        ):
            retire(index, 2)
        assert version_names(index) == ["000001", "000002", "000003"]

    def test_nor_does_it_if_the_good_one_was_removed_by_hand(self, index):
        shutil.rmtree(index / "versions" / "000001")
        path = index / "versions" / "000003" / "embeddings.npy"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UnreadableVersionError, match=r"version 000003 is damaged \(.*embeddings\.npy"):
            retire(index, 2)
        assert pruned(index) == 0
        path.write_bytes(whole)
        assert retire(index, 2) == []
        assert pruned(index) == 1

    def test_one_that_goes_needs_not_be_read(self, index):
        away(index, "000001", "manifest.json")
        assert retire(index, 2) == ["000001"]
        assert pruned(index) == 1

    def test_the_list_of_versions_says_why(self, index):
        away(index, "000002", "items.arrow")
        away_, here = versions(index)[1], versions(index)[2]
        assert (away_.manifest, here.problem) == (None, "")
        missing = f"{index}/versions/000002/items.arrow: is missing"
        lost = f"if 000002 is lost for good, remove {index}/versions/000002"
        way_out = f"version 000003 is the current one; {lost}; `vmmr-search restore` makes an index of a backup"
        assert away_.problem == f"{missing}: {way_out}"
        lines = retention.table(versions(index)).splitlines()
        assert lines[2].split() == ["000002", "cannot", "be", "read"]
        assert lines[4] == f"000002 cannot be read: {away_.problem}"

    def test_a_current_version_that_is_not_there_is_listed(self, index):
        away(index, "000003", "")
        assert [(kept.name, kept.current, bool(kept.problem)) for kept in versions(index)] == [
            ("000001", False, False),
            ("000002", False, False),
            ("000003", True, True),
        ]

    def test_compact_builds_its_version_and_says_that_nothing_was_removed(self, index):
        away(index, "000001", "shard-000.faiss")
        write(index, Add({"late": stored()}))
        done = subprocess.run(
            [sys.executable, "-m", "search_svc", "compact", index, "--keep-versions", "4"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert done.stdout.startswith(f"{index}/versions/000004: 63 photos")
        assert f"vmmr-search: warning: {index}: version 000001 cannot be read" in done.stderr
        assert pruned(index) == 0


class TestRollback:
    def test_from_a_version_that_cannot_be_read_goes_by_the_journal(self, index):
        gallery = replayed(index, base_of(index))
        away(index, "000003", "manifest.json")
        assert roll_back(index) == "000002"
        assert replayed(index, base_of(index)) == gallery

    @pytest.mark.parametrize("name", ["shard-000.faiss", "manifest.json"])
    def test_is_refused_without_a_journal_where_another_version_may_hold_more(self, index, name):
        for file in index.glob("journal.*"):
            file.unlink()
        away(index, "000003", name)
        with pytest.raises(ArtifactError, match=r"journal\.db: is missing, and .*: any that came after are lost"):
            roll_back(index, "000002")
        assert current(index) == "000003"


def test_to_ask_which_versions_are_in_use_locks_none(index, monkeypatch):
    """A lock taken just to ask makes that of a server which starts fail, and others who ask see a version in use."""
    held = VersionLease(index / "versions" / "000002")
    monkeypatch.setattr(locks.fcntl, "flock", lambda *_: pytest.fail("it locked"))
    assert [kept.in_use for kept in versions(index)] == [False, True, False]
    held.release()
    assert not any(kept.in_use for kept in versions(index))


def test_a_draft_whose_job_cannot_be_read_is_no_reason_to_begin_anew(index, monkeypatch):
    write(index, Add({"late": stored()}))
    job = index / "versions" / ".draft" / "job.json"
    job.parent.mkdir()
    job.write_text("as good as built")
    read = Path.read_bytes

    def fails(path):
        if path == job:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(ArtifactError, match=r"job\.json: Input/output error"):
        compact(index)
    assert job.read_text() == "as good as built"
