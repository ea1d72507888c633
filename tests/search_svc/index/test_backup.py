import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest

from search_svc.building.compaction import compact
from search_svc.index import backup
from search_svc.index.backup import back_up, restore
from search_svc.index.journal import Journal
from search_svc.index.journal_pruning import prune
from search_svc.index.retention import retire, versions
from search_svc.index.writes import Add, Delete
from svckit.artifact import ArtifactError, sha256
from svckit.cli import CommandError
from tests.search_svc.building.test_compaction import base_of, write
from tests.search_svc.journals import CAR, NO_CAR, D, replayed, stored, written

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def built(build_index, tmp_path_factory):
    vectors = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
    return build_index(vectors, directory=tmp_path_factory.mktemp("index")).path.parents[1]


@pytest.fixture
def index(built, tmp_path):
    """Of 60 items, one of which was replaced since, one deleted, and one added."""
    index = shutil.copytree(built, tmp_path / "index")
    write(index, Add({"photo 1.jpg": stored(cut=CAR), "new": stored(cut=NO_CAR)}), Delete(("photo 2.jpg",)))
    return index


def items(index_dir):
    """What the gallery holds, by id."""
    return replayed(index_dir, base_of(index_dir))


DAMAGES = {
    "an entry": "UPDATE entries SET embedding = zeroblob(length(embedding)) WHERE sequence = 2",
    "the end of the last write": "UPDATE entries SET closes = 0 WHERE sequence = 3",
    "an index": """PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '(label)', '(uri)')
        WHERE name = 'entries_of_label'; PRAGMA writable_schema = RESET""",
}


@pytest.fixture(params=DAMAGES.values(), ids=DAMAGES)
def damage(request):
    """Changes a journal as a fault of the disk might."""

    def damage(path):
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(f"{request.param}; PRAGMA wal_checkpoint(TRUNCATE)")

    return damage


class TestABackup:
    def test_restored_is_the_gallery_that_was_backed_up(self, index, tmp_path):
        done = back_up(index, str(tmp_path / "backup"))
        restored = restore(str(tmp_path / "backup"), tmp_path / "restored")
        assert restored == done
        assert done.journal_sequence == 3
        assert items(tmp_path / "restored") == items(index)

    def test_keeps_what_of_photos_was_embedded_in_the_journal_and_in_a_version(self, index, tmp_path):
        back_up(index, str(tmp_path / "journal"))
        compact(index)
        back_up(index, str(tmp_path / "version"))
        for name in ("journal", "version"):
            restore(str(tmp_path / name), tmp_path / f"restored {name}")
            found = items(tmp_path / f"restored {name}")
            assert [found[item_id].cut for item_id in ("photo 1.jpg", "new", "photo 0.jpg")] == [CAR, NO_CAR, None]

    def test_holds_nothing_but_what_it_lists(self, index, tmp_path):
        back_up(index, str(tmp_path / "backup"))
        found = {
            path.relative_to(tmp_path / "backup").as_posix()
            for path in (tmp_path / "backup").rglob("*")
            if path.is_file()
        }
        listed = json.loads((tmp_path / "backup/manifest.json").read_bytes())["files"]
        assert found == {*listed, "manifest.json"}
        assert "versions/000001/items.arrow" in listed
        assert {name for name in listed if "/" not in name} == {"CURRENT", "journal.db"}

    def test_of_an_index_that_was_never_written_to_has_no_journal(self, built, tmp_path):
        assert back_up(built, str(tmp_path / "backup")).journal_sequence == 0
        restore(str(tmp_path / "backup"), tmp_path / "restored")
        assert not (tmp_path / "restored/journal.db").exists()
        assert items(tmp_path / "restored") == items(built)

    def test_goes_wherever_fsspec_writes(self, index, tmp_path):
        url = f"memory://{tmp_path.name}/backup"
        back_up(index, url)
        assert fsspec.filesystem("memory").exists(f"/{tmp_path.name}/backup/manifest.json")
        restore(url, tmp_path / "restored")
        assert items(tmp_path / "restored") == items(index)

    def test_of_the_current_version_alone(self, index, tmp_path):
        compact(index)
        write(index, Add({"newer": stored()}))
        assert back_up(index, str(tmp_path / "backup")).version == "000002"
        restore(str(tmp_path / "backup"), tmp_path / "restored")
        assert [kept.name for kept in versions(tmp_path / "restored")] == ["000002"]
        assert items(tmp_path / "restored") == items(index)

    def test_can_be_written_to_and_compacted_when_restored(self, index, tmp_path):
        back_up(index, str(tmp_path / "backup"))
        restored = tmp_path / "restored"
        restore(str(tmp_path / "backup"), restored)
        [outcome] = write(restored, Add({"after": stored()}))
        assert outcome.sequence == 4
        before = items(restored)
        compact(restored)
        assert items(restored) == before

    def test_has_every_write_acknowledged_before_it_and_none_in_part(self, index, tmp_path):
        ended, more = threading.Event(), threading.Semaphore(0)
        acknowledged: list[int] = []

        def keep_writing():
            number = 0
            while not ended.is_set():
                names = {f"pair {number} a": stored(), f"pair {number} b": stored()}
                [outcome] = written(index, Add(names), base=base_of(index))
                acknowledged.append(outcome.sequence)
                more.release()
                number += 1

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            for number in range(5):
                assert all(more.acquire(timeout=60) for _ in range(2)), "it keeps writing"
                before = len(acknowledged)
                done = back_up(index, str(tmp_path / f"backup {number}"))
                restore(str(tmp_path / f"backup {number}"), tmp_path / f"restored {number}")
                found = items(tmp_path / f"restored {number}")
                pairs = [name.split()[1] for name in found if name.startswith("pair ")]
                assert all(pairs.count(pair) == 2 for pair in pairs)
                assert len(pairs) >= 2 * before
                assert done.journal_sequence == 3 + len(pairs)
        finally:
            ended.set()
            writer.join()
        assert len(acknowledged) > 5

    def test_keeps_the_version_from_being_removed_while_it_is_copied(self, index, tmp_path, monkeypatch):
        def meanwhile(*args):
            write(index, Add({"newer": stored()}))
            compact(index)
            assert retire(index, 1) == []
            return upload(*args)

        upload = backup._upload
        monkeypatch.setattr(backup, "_upload", meanwhile)
        assert back_up(index, str(tmp_path / "backup")).version == "000001"
        restore(str(tmp_path / "backup"), tmp_path / "restored")
        assert "newer" not in items(tmp_path / "restored")
        assert retire(index, 1) == ["000001"]

    def test_without_the_journal_that_its_version_needs_is_refused(self, index, tmp_path):
        with Journal.open(index) as journal:
            prune(index, journal.sequence())
        with pytest.raises(ArtifactError, match=r"journal\.db: was pruned while it was copied"):
            back_up(index, str(tmp_path / "backup"))


class TestRefused:
    def test_a_place_that_holds_something(self, index, tmp_path):
        (tmp_path / "backup").mkdir()
        (tmp_path / "backup/letter.txt").write_text("mine")
        with pytest.raises(CommandError, match="is there already: a backup goes to a new or empty folder"):
            back_up(index, str(tmp_path / "backup"))
        assert [path.name for path in (tmp_path / "backup").iterdir()] == ["letter.txt"]

    def test_a_kind_of_place_that_there_is_not(self, index):
        with pytest.raises(CommandError, match=r"nowhere://x: Protocol not known"):
            back_up(index, "nowhere://x")

    def test_to_back_up_a_damaged_index(self, index, tmp_path):
        flip(index / "versions/000001/embeddings.npy")
        with pytest.raises(ArtifactError, match=r"embeddings\.npy: is damaged"):
            back_up(index, str(tmp_path / "backup"))
        assert not (tmp_path / "backup").exists()

    def test_to_back_up_a_damaged_journal(self, index, tmp_path, damage):
        damage(index / "journal.db")
        with pytest.raises(ArtifactError, match=rf"{index}/journal\.db: (is damaged|ends with)") as caught:
            back_up(index, str(tmp_path / "backup"))
        assert not (tmp_path / "backup").exists()
        assert "/tmp" not in caught.value.reason.replace(str(index), "")

    def test_to_restore_a_damaged_journal_that_is_as_it_was_backed_up(self, index, tmp_path, damage):
        back_up(index, str(tmp_path / "backup"))
        damage(tmp_path / "backup/journal.db")
        resealed(tmp_path / "backup", "journal.db")
        with pytest.raises(ArtifactError, match=r"backup/journal\.db: (is damaged|ends with)"):
            restore(str(tmp_path / "backup"), tmp_path / "restored")
        assert not (tmp_path / "restored").exists()

    def test_to_restore_a_version_that_was_damaged_after_it_was_verified(self, index, tmp_path, monkeypatch):
        def damaged_meanwhile(*args):
            flip(index / "versions/000001/embeddings.npy")
            return upload(*args)

        upload = backup._upload
        monkeypatch.setattr(backup, "_upload", damaged_meanwhile)
        back_up(index, str(tmp_path / "backup"))
        with pytest.raises(ArtifactError, match=r"backup/versions/000001/embeddings\.npy: is damaged"):
            restore(str(tmp_path / "backup"), tmp_path / "restored")

    def test_to_restore_less_than_the_manifest_tells(self, index, tmp_path):
        back_up(index, str(tmp_path / "backup"))
        resealed(tmp_path / "backup", journal_sequence=4)
        with pytest.raises(
            ArtifactError, match=r"backup/manifest\.json: says .* journal to 4; there are .* journal to 3"
        ):
            restore(str(tmp_path / "backup"), tmp_path / "restored")

    def test_to_restore_over_an_index(self, index, tmp_path):
        back_up(index, str(tmp_path / "backup"))
        with pytest.raises(ArtifactError, match="already exists"):
            restore(str(tmp_path / "backup"), index)

    @pytest.mark.parametrize("name", ["versions/000001/embeddings.npy", "journal.db", "CURRENT"])
    def test_to_restore_a_damaged_file(self, index, tmp_path, name):
        back_up(index, str(tmp_path / "backup"))
        flip(tmp_path / "backup" / name)
        with pytest.raises(ArtifactError, match=f"backup/{name}: is damaged"):
            restore(str(tmp_path / "backup"), tmp_path / "restored")
        assert not (tmp_path / "restored").exists()

    @pytest.mark.parametrize("name", ["versions/000001/manifest.json", "manifest.json"])
    def test_to_restore_a_backup_that_did_not_end(self, index, tmp_path, name):
        back_up(index, str(tmp_path / "backup"))
        (tmp_path / "backup" / name).unlink()
        with pytest.raises(CommandError, match=f"backup/{name}: is missing"):
            restore(str(tmp_path / "backup"), tmp_path / "restored")

    @pytest.mark.parametrize("outside", ["../elsewhere", "/elsewhere", "versions/../../elsewhere"])
    def test_to_restore_files_outside_the_index(self, index, tmp_path, outside):
        back_up(index, str(tmp_path / "backup"))
        manifest = tmp_path / "backup/manifest.json"
        fields = json.loads(manifest.read_bytes())
        fields["files"][outside] = fields["files"]["CURRENT"]
        manifest.write_text(json.dumps(backup.sealed(fields)))
        with pytest.raises(CommandError, match="which is outside of it"):
            restore(str(tmp_path / "backup"), tmp_path / "restored")

    def test_to_restore_an_edited_manifest(self, index, tmp_path):
        back_up(index, str(tmp_path / "backup"))
        manifest = tmp_path / "backup/manifest.json"
        manifest.write_text(manifest.read_text().replace('"journal_sequence": 3', '"journal_sequence": 4'))
        with pytest.raises(ArtifactError, match=r"backup/manifest\.json: is no manifest of a backup, or was edited"):
            restore(str(tmp_path / "backup"), tmp_path / "restored")


def test_the_commands_say_what_they_did(index, tmp_path):
    said = run("backup", index, tmp_path / "backup").stdout
    assert said.startswith(f"{tmp_path}/backup: version 000001, journal to 3, ")
    assert run("restore", tmp_path / "backup", tmp_path / "restored").stdout.startswith(f"{tmp_path}/restored: version")
    again = run("restore", tmp_path / "backup", tmp_path / "restored")
    assert again.returncode == 1
    assert again.stderr.startswith("vmmr-search: error: ")


def resealed(backup_dir, *names, **fields):
    """Has the manifest of a backup say what its files are now, and whatever else is given."""
    manifest = backup_dir / "manifest.json"
    content = json.loads(manifest.read_bytes()) | fields
    for name in names:
        path = backup_dir / name
        content["files"][name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    manifest.write_text(json.dumps(backup.sealed(content)))


def run(*arguments):
    command = [sys.executable, "-m", "search_svc", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
