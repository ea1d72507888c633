import errno
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.__main__ import parser
from search_svc.building.compaction import compact
from search_svc.index import backup, backup_records, journal_segment, lineage
from search_svc.index.backup import BackupRunningError, back_up, restore
from search_svc.index.backup_place import Place
from search_svc.index.journal import Journal
from search_svc.index.journal_pruning import prune
from search_svc.index.retention import retire, roll_back, versions
from search_svc.index.writes import Add, Delete
from search_svc.live.drill import drill
from svckit.artifact import ArtifactError, file_names, sealed, sha256
from svckit.cli import CommandError
from tests.search_svc.building.test_compaction import base_of, some_writes, write
from tests.search_svc.journals import CAR, NO_CAR, D, make_format_1, replayed, stored, written

ROOT = Path(__file__).parents[3]
_NO_ID = shutil.ignore_patterns("ID")
"""Of a copy: it is to be another index."""


@pytest.fixture(scope="module")
def built(build_index, tmp_path_factory):
    vectors = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
    return build_index(vectors, directory=tmp_path_factory.mktemp("index")).path.parents[1]


@pytest.fixture
def index(built, tmp_path):
    """Of 60 items, one of which was replaced since, one deleted, and one added."""
    index = shutil.copytree(built, tmp_path / "index", ignore=_NO_ID)
    write(index, Add({"photo 1.jpg": stored(cut=CAR), "new": stored(cut=NO_CAR)}), Delete(("photo 2.jpg",)))
    return index


@pytest.fixture
def backups(tmp_path):
    return str(tmp_path / "backups")


@pytest.fixture(scope="module")
def dry():
    """Nothing waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "fdatasync", lambda _: None)
        yield


def items(index_dir):
    """What the gallery holds, by id."""
    return replayed(index_dir, base_of(index_dir))


def restored(backups, tmp_path, at_sequence=None):
    """What the gallery of a backup holds."""
    place = tmp_path / f"restored {next(_numbers)}"
    restore(backups, place, at_sequence)
    return items(place)


_numbers = itertools.count()


def names(backups):
    return file_names(Path(backups))


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
    def test_restored_is_the_gallery_that_was_backed_up(self, index, backups, tmp_path):
        done = back_up(index, backups)
        made = restore(backups, tmp_path / "restored")
        assert (made.version, made.journal_sequence, made.size) == ("000001", 3, done.size)
        assert items(tmp_path / "restored") == items(index)

    def test_keeps_what_of_photos_was_embedded_in_the_journal_and_in_a_version(self, index, tmp_path):
        back_up(index, str(tmp_path / "journal"))
        compact(index)
        back_up(index, str(tmp_path / "version"))
        for name in ("journal", "version"):
            found = restored(str(tmp_path / name), tmp_path)
            assert [found[item_id].cut for item_id in ("photo 1.jpg", "new", "photo 0.jpg")] == [CAR, NO_CAR, None]

    def test_holds_nothing_but_what_its_record_names(self, index, backups, tmp_path):
        back_up(index, backups)
        record = backup_records.read(Place.at(backups), 1, tmp_path)
        assert {*names(backups)} == {"backups/000001.json", *record.files}

    def test_of_an_index_that_was_never_written_to_has_no_journal(self, built, backups, tmp_path):
        assert back_up(built, backups).journal_sequence == 0
        restore(backups, tmp_path / "restored")
        assert not (tmp_path / "restored/journal.db").exists()
        assert items(tmp_path / "restored") == items(built)

    def test_goes_wherever_fsspec_writes(self, index, tmp_path):
        url = f"memory://{tmp_path.name}/backups"
        for number in range(2):
            write(index, Add({f"number {number}": stored()}))
            back_up(index, url, keep=1)
        found = fsspec.filesystem("memory").ls(f"/{tmp_path.name}/backups/backups", detail=False)
        assert found == [f"/{tmp_path.name}/backups/backups/000002.json"]
        assert restored(url, tmp_path) == items(index)

    def test_restored_has_one_version(self, index, backups, tmp_path):
        back_up(index, backups)
        compact(index)
        write(index, Add({"newer": stored()}))
        assert back_up(index, backups).version == "000002"
        restore(backups, tmp_path / "restored")
        assert [kept.name for kept in versions(tmp_path / "restored")] == ["000002"]
        assert items(tmp_path / "restored") == items(index)

    def test_can_be_written_to_and_compacted_when_restored(self, index, backups, tmp_path):
        back_up(index, backups)
        made = tmp_path / "restored"
        restore(backups, made)
        [outcome] = write(made, Add({"after": stored()}))
        assert outcome.sequence == 4
        before = items(made)
        compact(made)
        assert items(made) == before

    def test_of_a_journal_of_an_earlier_format(self, built, backups, tmp_path):
        index = shutil.copytree(built, tmp_path / "index")
        make_format_1(index, {"old": stored(), "older": stored(number=1)})
        back_up(index, backups)
        assert restored(backups, tmp_path) == items(index)
        assert "old" in items(index)

    def test_after_a_rollback_is_of_the_version_that_is_served(self, index, backups, tmp_path):
        back_up(index, backups)
        compact(index)
        back_up(index, backups)
        roll_back(index)
        write(index, Add({"newer": stored()}))
        assert back_up(index, backups).version == "000001"
        assert restore(backups, tmp_path / "restored").version == "000001"
        assert items(tmp_path / "restored") == items(index)

    def test_has_every_write_acknowledged_before_it_and_none_in_part(self, index, backups, tmp_path):
        ended, more = threading.Event(), threading.Semaphore(0)
        acknowledged: list[int] = []

        def keep_writing():
            number = 0
            while not ended.is_set():
                pair = {f"pair {number} a": stored(), f"pair {number} b": stored()}
                [outcome] = written(index, Add(pair), base=base_of(index))
                acknowledged.append(outcome.sequence)
                more.release()
                number += 1

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            for _ in range(5):
                assert all(more.acquire(timeout=60) for _ in range(2)), "it keeps writing"
                before = len(acknowledged)
                done = back_up(index, backups)
                found = restored(backups, tmp_path)
                pairs = [name.split()[1] for name in found if name.startswith("pair ")]
                assert all(pairs.count(pair) == 2 for pair in pairs)
                assert len(pairs) >= 2 * before
                assert done.journal_sequence == 3 + len(pairs)
        finally:
            ended.set()
            writer.join()
        assert len(acknowledged) > 5

    def test_keeps_the_version_from_being_removed_while_it_is_copied(self, index, backups, tmp_path, monkeypatch):
        def meanwhile(*args):
            write(index, Add({"newer": stored()}))
            compact(index)
            assert retire(index, 1) == []
            return copy(*args)

        copy = backup._copy_missing
        monkeypatch.setattr(backup, "_copy_missing", meanwhile)
        assert back_up(index, backups).version == "000001"
        assert "newer" not in restored(backups, tmp_path)
        assert retire(index, 1) == ["000001"]

    def test_without_the_journal_that_its_version_needs_is_refused(self, index, backups):
        with Journal.open(index) as journal:
            prune(index, journal.sequence())
        with pytest.raises(ArtifactError, match=r"journal\.db: was pruned while it was copied"):
            back_up(index, backups)

    def test_one_at_a_time(self, index, backups, monkeypatch):
        def meanwhile(*args):
            with pytest.raises(BackupRunningError, match="another process is backing it up"):
                back_up(index, backups)
            return copy(*args)

        copy = backup._copy_missing
        monkeypatch.setattr(backup, "_copy_missing", meanwhile)
        back_up(index, backups)


class TestTheNext:
    def test_copies_what_is_new_alone(self, index, backups, tmp_path):
        first = back_up(index, backups)
        before = {name: (Path(backups) / name).stat().st_mtime_ns for name in names(backups)}
        write(index, Add({"newer": stored()}))
        second = back_up(index, backups)
        assert first.copied == first.size
        assert 0 < second.copied < first.copied
        new = {*names(backups)} - before.keys()
        assert len(new) == 2, "a segment and a record"
        assert {name: (Path(backups) / name).stat().st_mtime_ns for name in before} == before
        assert restored(backups, tmp_path) == items(index)

    def test_copies_nothing_if_nothing_was_written(self, index, backups, tmp_path):
        back_up(index, backups)
        assert back_up(index, backups).copied == 0
        assert restored(backups, tmp_path) == items(index)

    def test_needs_few_segments_of_the_journal_however_many_there_were(self, index, backups, tmp_path, dry):
        for number in range(20):
            write(index, Add({f"number {number}": stored()}))
            back_up(index, backups)
        segments = backup_records.read(Place.at(backups), 20, tmp_path).segments
        assert len(segments) <= 5
        assert restored(backups, tmp_path) == items(index)

    def test_copies_again_what_is_gone(self, index, backups, tmp_path):
        back_up(index, backups)
        shutil.rmtree(tmp_path / "backups/files")
        back_up(index, backups)
        assert restored(backups, tmp_path) == items(index)

    def test_does_not_take_another_history_for_its_own(self, index, backups, tmp_path):
        """An index is restored as it was earlier, goes on from there, and backs up to the same folder."""
        write(index, *(Add({f"good {number}": stored()}) for number in range(3)))
        write(index, Add({"bad": stored(number=1)}), Add({"last": stored()}))
        back_up(index, backups)
        lost = items(index)
        restore(backups, tmp_path / "again", 6)
        write(tmp_path / "again", Add({"better": stored(number=2)}), Add({"last": stored()}))
        back_up(tmp_path / "again", backups)
        found = restored(backups, tmp_path)
        assert found == items(tmp_path / "again")
        assert "better" in found
        assert "bad" in lost
        assert "bad" not in found
        assert restored(backups, tmp_path, 7).keys() == found.keys() - {"last"}

    def test_removes_the_oldest_and_what_they_alone_needed(self, index, backups, tmp_path):
        for number in range(5):
            write(index, Add({f"number {number}": stored()}))
            compact(index)
            retire(index, 1)
            back_up(index, backups, keep=2)
        place = Place.at(backups)
        assert backup_records.numbers(place) == [4, 5]
        needed = [backup_records.read(place, number, tmp_path).files for number in (4, 5)]
        assert {*names(backups)} == {"backups/000004.json", "backups/000005.json", *needed[0], *needed[1]}
        assert restored(backups, tmp_path) == items(index)


class TestAtASequence:
    def test_is_the_gallery_after_the_last_write_that_had_ended(self, index, backups, tmp_path):
        before = items(index)
        write(index, Add({"a": stored(), "b": stored()}), Delete(("photo 3.jpg",)))
        back_up(index, backups)
        assert restored(backups, tmp_path, 6) == items(index)
        assert restored(backups, tmp_path, 5).keys() == before.keys() | {"a", "b"}
        assert restored(backups, tmp_path, 4) == restored(backups, tmp_path, 3) == before

    def test_between_two_backups_that_a_compaction_lies_between(self, index, backups, tmp_path):
        back_up(index, backups)
        write(index, Add({"a": stored()}))
        before = items(index)
        write(index, Add({"b": stored()}))
        compact(index)
        write(index, Add({"c": stored()}))
        back_up(index, backups)
        assert restored(backups, tmp_path, 4) == before
        assert restored(backups, tmp_path, 6) == items(index)

    def test_before_the_first_compaction_of_what_was_restored(self, index, backups, tmp_path):
        back_up(index, backups)
        compact(index)
        retire(index, 1)
        back_up(index, backups)
        restore(backups, tmp_path / "again", 2)
        write(tmp_path / "again", Add({"a": stored()}))
        before = items(tmp_path / "again")
        write(tmp_path / "again", Add({"b": stored()}))
        compact(tmp_path / "again")
        back_up(tmp_path / "again", backups)
        assert restored(backups, tmp_path, 3) == before

    def test_that_no_backup_has_is_refused(self, index, backups, tmp_path):
        back_up(index, backups)
        with pytest.raises(CommandError, match="its newest backup ends with entry 3 of the journal"):
            restore(backups, tmp_path / "restored", 4)
        write(index, Add({"a": stored()}), Add({"b": stored()}))
        compact(index)
        retire(index, 1)
        back_up(index, backups, keep=1)
        with pytest.raises(
            CommandError, match="no backup has the gallery as it was at entry 4: its oldest goes back to 5"
        ):
            restore(backups, tmp_path / "restored", 4)
        assert not (tmp_path / "restored").exists()

    def test_that_the_history_which_was_given_up_has_too_is_of_the_one_that_goes_on(self, index, backups, tmp_path):
        """Entry 4 of a gallery that was restored at entry 3 is not entry 4 of the one before."""
        write(index, Add({"bad": stored()}))
        back_up(index, backups)
        restore(backups, tmp_path / "again", 3)
        write(tmp_path / "again", Add({"better": stored()}))
        better = items(tmp_path / "again")
        write(tmp_path / "again", Add({"best": stored()}))
        compact(tmp_path / "again")
        back_up(tmp_path / "again", backups)
        assert restored(backups, tmp_path, 4) == better
        retire(tmp_path / "again", 1)
        back_up(tmp_path / "again", backups)
        (Path(backups) / "backups/000002.json").unlink()
        assert restored(backups, tmp_path, 3).keys() == better.keys() - {"better"}
        with pytest.raises(
            CommandError, match="no backup has the gallery as it was at entry 4: its oldest goes back to 0"
        ):
            restore(backups, tmp_path / "restored", 4)

    def test_within_a_write_is_where_the_history_of_what_is_restored_begins(self, index, backups, tmp_path):
        """Entry 4 is half a write, which is not restored: the next write to what is restored has that number."""
        write(index, Add({"bad": stored(), "worse": stored()}))
        back_up(index, backups)
        restore(backups, tmp_path / "again", 4)
        write(tmp_path / "again", Add({"better": stored()}))
        compact(tmp_path / "again")
        retire(tmp_path / "again", 1)
        write(tmp_path / "again", Add({"best": stored()}))
        compact(tmp_path / "again")
        retire(tmp_path / "again", 1)
        back_up(tmp_path / "again", backups)
        with pytest.raises(CommandError, match="no backup has the gallery as it was at entry 4"):
            restore(backups, tmp_path / "restored", 4)
        assert restored(backups, tmp_path, 3).keys() == items(index).keys() - {"bad", "worse"}

    @settings(max_examples=10)
    @given(
        rounds=st.lists(
            st.tuples(some_writes, st.sampled_from(["", "compact", "retire", "restore"]), st.booleans()),
            min_size=1,
            max_size=4,
        ),
        ask=st.randoms(use_true_random=False),
    )
    def test_is_what_a_dict_says_whatever_was_written_compacted_and_backed_up(
        self, built, tmp_path_factory, dry, rounds, ask
    ):
        work = tmp_path_factory.mktemp("random")
        index, backups = shutil.copytree(built, work / "index"), str(work / "backups")
        history = {0: items(index)}
        back_up(index, backups)
        for writes, then, backs_up in rounds:
            for one in writes:
                [outcome] = write(index, one)
                history[outcome.sequence] = items(index)
            if then in ("compact", "retire"):
                compact(index)
            if then == "retire":
                back_up(index, backups)
                retire(index, 1)
            if backs_up or then == "restore":
                back_up(index, backups)
            if then == "restore":
                sequence = ask.choice(sorted(history))
                index = work / f"again {sequence} {next(_numbers)}"
                restore(backups, index, sequence)
                history = {known: gallery for known, gallery in history.items() if known <= sequence}
        back_up(index, backups)
        for sequence, gallery in history.items():
            assert restored(backups, work, sequence) == gallery
        assert restored(backups, work) == items(index)


class TestStopped:
    @pytest.mark.parametrize("files", [0, 2, 4])
    def test_by_a_kill_leaves_the_backups_before_it_and_the_next_one_goes_on(self, index, backups, tmp_path, files):
        back_up(index, backups)
        before = items(index)
        write(index, Add({"newer": stored()}))
        compact(index)
        program = KILLED_AFTER.format(files=files, index=str(index), backups=backups)
        ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=120)
        assert ended.returncode == -signal.SIGKILL
        assert restored(backups, tmp_path) == before
        back_up(index, backups)
        assert restored(backups, tmp_path) == items(index)

    def test_by_a_limit_of_the_system_names_the_file_and_loses_nothing(self, built, backups, tmp_path):
        limited = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh"]
        ended = run("backup", built, backups, before=limited)
        assert ended.returncode == 1
        assert re.search(
            rf"^vmmr-search: error: {backups}/files/[0-9a-f]+: File too large$", ended.stderr, re.MULTILINE
        )
        assert not [name for name in names(backups) if not name.startswith("files/") or name.endswith(".part")]
        back_up(built, backups)
        assert restored(backups, tmp_path) == items(built)

    def test_by_a_place_without_room_tells_of_it(self, index, backups, monkeypatch, tmp_path):
        back_up(index, backups)
        before = items(index)
        write(index, Add({"newer": stored()}))

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(fsspec.get_filesystem_class("file"), "put_file", full)
            with pytest.raises(CommandError, match=rf"{backups}/files/[0-9a-f]+: No space left on device"):
                back_up(index, backups)
        assert restored(backups, tmp_path) == before
        assert not [name for name in names(backups) if name.endswith(".part")]


KILLED_AFTER = """
import os, pathlib, signal
from search_svc.index import backup, backup_place
put, done = backup_place.Place.put, 0
def killing(*arguments):
    global done
    if done == {files}:
        os.kill(os.getpid(), signal.SIGKILL)
    done += 1
    put(*arguments)
def write(self, name, content):
    os.kill(os.getpid(), signal.SIGKILL)
backup_place.Place.put, backup_place.Place.write = killing, write
backup.back_up(pathlib.Path({index!r}), {backups!r})
"""


class TestWhatAKillHasLeft:
    @pytest.mark.parametrize("files", [0, 2, 4])
    def test_is_removed_by_a_later_backup_that_removes_old_ones(self, index, backups, tmp_path, files, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()
        back_up(index, backups, keep=3)
        write(index, Add({"newer": stored()}))
        compact(index)
        program = KILLED_AFTER.format(files=files, index=str(index), backups=backups)
        ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=120)
        assert ended.returncode == -signal.SIGKILL
        assert list((tmp_path / "tmp").iterdir())
        for left in (f"files/{'0' * 64}", f"files/{'1' * 64}.part", "backups/000007.json.part"):
            (Path(backups) / left).write_bytes(b"left")
        (Path(backups) / "files/README").write_text("ours")
        write(index, Add({"newest": stored()}))
        back_up(index, backups, keep=3)
        needed = [backup_records.read(Place.at(backups), number, tmp_path).files for number in (1, 2)]
        records = {"backups/000001.json", "backups/000002.json"}
        assert {*names(backups)} == {*records, "files/README", *needed[0], *needed[1]}
        assert list((tmp_path / "tmp").iterdir()) == []
        assert restored(backups, tmp_path) == items(index)


class TestAFolder:
    @pytest.fixture
    def another(self, built, tmp_path):
        another = shutil.copytree(built, tmp_path / "another", ignore=_NO_ID)
        back_up(another, str(tmp_path / "its own"))
        return another

    def test_of_another_index_is_refused_by_name_and_stays_as_it_was(self, index, another, backups, tmp_path):
        back_up(index, backups)
        before = names(backups)
        said = rf"{backups} is of another index, [0-9a-f]{{32}}, and {another} is [0-9a-f]{{32}}: name another folder"
        with pytest.raises(CommandError, match=said):
            back_up(another, backups)
        assert names(backups) == before
        assert restored(backups, tmp_path) == items(index)

    def test_goes_on_with_what_was_restored_of_it_wherever_that_is(self, index, backups, tmp_path):
        back_up(index, backups)
        restore(backups, tmp_path / "restored")
        shutil.move(tmp_path / "restored", tmp_path / "moved")
        write(tmp_path / "moved", Add({"newer": stored()}))
        back_up(tmp_path / "moved", backups)
        assert restored(backups, tmp_path) == items(tmp_path / "moved")

    def test_of_an_index_goes_on_with_one_that_was_restored_of_it_and_not_with_both(
        self, index, backups, tmp_path, caplog
    ):
        back_up(index, backups)
        restore(backups, tmp_path / "restored")
        assert caplog.messages == []
        for _ in range(2):
            back_up(tmp_path / "restored", backups, keep=1)
        [told] = caplog.records
        assert (told.message[:48], told.shared_until) == ("the folder of backups goes on with another history"[:48], 3)
        assert {"backups/000001.json", "backups/000003.json"} <= {*names(backups)}, "the other's are never removed"
        assert "backups/000002.json" not in names(backups)
        before = names(backups)
        with pytest.raises(CommandError, match=f"two must not share a folder, so name another one for {index}"):
            back_up(index, backups)
        assert names(backups) == before

    def test_goes_on_with_what_was_restored_of_a_backup_of_the_history_before(self, index, backups, tmp_path):
        back_up(index, backups)
        restore(backups, tmp_path / "restored")
        write(tmp_path / "restored", Add({"newer": stored()}))
        compact(tmp_path / "restored")
        retire(tmp_path / "restored", 1)
        back_up(tmp_path / "restored", backups)
        restore(backups, tmp_path / "again", 2)
        back_up(tmp_path / "again", backups)
        assert restored(backups, tmp_path) == items(tmp_path / "again")

    def test_of_an_index_and_of_its_copy_by_cp_does_not_take_the_entries_of_one_for_those_of_the_other(
        self, index, backups, tmp_path
    ):
        back_up(index, backups)
        copy = shutil.copytree(index, tmp_path / "copy")
        write(index, Add({"mine": stored()}))
        back_up(index, backups)
        write(copy, Add({"yours": stored()}), Add({"yours too": stored(number=1)}))
        back_up(copy, backups)
        compact(copy)
        retire(copy, 1)
        back_up(copy, backups)
        (Path(backups) / "backups/000003.json").unlink()
        assert restored(backups, tmp_path) == items(copy)
        with pytest.raises(CommandError, match="no backup has the gallery as it was at entry 4"):
            restore(backups, tmp_path / "restored", 4)
        assert restored(backups, tmp_path, 3).keys() == items(copy).keys() - {"yours", "yours too"}
        with pytest.raises(
            CommandError, match=f"or is a copy: two must not share a folder, so name another one for {index}"
        ):
            back_up(index, backups)

    @pytest.mark.parametrize("compacted", [False, True])
    def test_goes_on_with_an_index_whose_files_were_put_back_as_they_were_before(
        self, index, backups, tmp_path, compacted
    ):
        back_up(index, backups)
        before = shutil.copytree(index, tmp_path / "before")
        write(index, Add({"bad": stored()}), Add({"worse": stored()}))
        if compacted:
            compact(index)
            retire(index, 1)
        back_up(index, backups)
        shutil.rmtree(index)
        before.rename(index)
        back_up(index, backups)
        assert restored(backups, tmp_path) == items(index)
        write(index, Add({"good": stored()}), Add({"better": stored()}))
        compact(index)
        retire(index, 1)
        write(index, Add({"best": stored()}))
        back_up(index, backups)
        assert restored(backups, tmp_path) == items(index)
        with pytest.raises(CommandError, match="no backup has the gallery as it was at entry 4"):
            restore(backups, tmp_path / "restored", 4)

    def test_of_an_index_whose_journal_was_pruned_is_of_the_history_that_it_was_of(self, index, backups, tmp_path):
        back_up(index, backups)
        was = (index / "ID").read_bytes()
        for number in range(4):
            write(index, Add({f"number {number}": stored()}), Delete(("photo 5.jpg",)))
            compact(index)
            if number % 2:
                retire(index, 1)
            back_up(index, backups)
            roll_back(index) if not number else None
        assert (index / "ID").read_bytes() == was

    def test_that_another_index_is_backed_up_to_meanwhile_keeps_the_backup_of_that(
        self, index, backups, tmp_path, monkeypatch
    ):
        def meanwhile(*args):
            with monkeypatch.context() as patch:
                patch.setattr(backup, "_copy_missing", copy)
                back_up(index, backups)
            return copy(*args)

        back_up(index, backups)
        restore(backups, tmp_path / "restored")
        write(tmp_path / "restored", Add({"yours": stored()}))
        write(index, Add({"mine": stored()}))
        copy = backup._copy_missing
        monkeypatch.setattr(backup, "_copy_missing", meanwhile)
        with pytest.raises(CommandError, match="another index was backed up to it meanwhile"):
            back_up(tmp_path / "restored", backups)
        assert restored(backups, tmp_path) == items(index)

    def test_goes_on_with_the_other_again_once_the_record_of_a_mistaken_backup_is_gone(self, index, backups, tmp_path):
        write(index, Add({"a": stored()}))
        last = back_up(index, backups).journal_sequence
        restore(backups, tmp_path / "looked at", 0)
        back_up(tmp_path / "looked at", backups)
        max((Path(backups) / "backups").iterdir()).unlink()
        assert restore(backups, tmp_path / "again").journal_sequence == last
        back_up(index, backups)

    def test_takes_an_index_that_cannot_be_written_unless_it_is_another_s(self, index, another, backups, monkeypatch):
        def read_only(*_):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(lineage, "atomic_write", read_only)
        for _ in range(2):
            back_up(index, backups)
        back_up(another, backups)
        with pytest.raises(CommandError, match=rf"{index} is one that has no id"):
            back_up(index, backups)

    @pytest.mark.parametrize(
        "content", [b"", b"0", b"\xff\xff", b"{}", b'{"index": "0123456789abcdee", "history": "", "shared": {}}']
    )
    def test_is_not_written_to_if_the_index_s_id_is_damaged(self, index, backups, content):
        (index / "ID").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"ID: is not as it was written: .*remove it"):
            back_up(index, backups)


class TestDamaged:
    def test_byte_of_any_file_is_refused_by_name(self, index, backups, tmp_path):
        back_up(index, backups)
        write(index, *(Add({f"number {number}": stored()}) for number in range(3)))
        back_up(index, backups)
        needed = backup_records.read(Place.at(backups), 2, tmp_path).files
        for name in ("backups/000002.json", *needed):
            path = Path(backups) / name
            well = path.read_bytes()
            for place in (0, len(well) // 2, len(well) - 2):
                path.write_bytes(well[:place] + bytes([well[place] ^ 1]) + well[place + 1 :])
                with pytest.raises(
                    ArtifactError, match=rf"^{path}: is (damaged|not as it was written).*remove this file"
                ):
                    restore(backups, tmp_path / "restored")
                assert not (tmp_path / "restored").exists()
            path.write_bytes(well)
        assert restored(backups, tmp_path) == items(index)

    @pytest.fixture
    def bad_newest(self, index, backups):
        """Three backups, to entries 3, 4 and 5; the record of the last is damaged."""
        back_up(index, backups)
        for name in ("a", "b"):
            write(index, Add({name: stored()}))
            back_up(index, backups)
        flip(record := Path(backups) / "backups/000003.json")
        return record

    @pytest.mark.parametrize("content", [None, b"", b"{}"])
    def test_record_of_the_newest_is_refused_with_what_restores_the_one_before(
        self, bad_newest, backups, tmp_path, content
    ):
        if content is not None:
            bad_newest.write_bytes(content)
        told = rf"{bad_newest}: is not as it was written: .*: `--at-sequence 4` restores the newest one .*, backup 2; remove this file"
        with pytest.raises(ArtifactError, match=told):
            restore(backups, tmp_path / "restored")
        assert not (tmp_path / "restored").exists()

    def test_record_is_passed_over_where_another_has_what_is_asked_for(self, bad_newest, backups, tmp_path, caplog):
        assert "a" in restored(backups, tmp_path, 4)
        [told] = caplog.messages
        assert re.match(rf"a backup is passed over: {bad_newest}: is not as it was written: .*: remove this file", told)
        with pytest.raises(CommandError, match="its newest backup that can be read ends with entry 4"):
            restore(backups, tmp_path / "restored", 5)

    def test_record_of_an_older_backup_keeps_no_newer_one_from_being_restored(
        self, bad_newest, backups, tmp_path, caplog
    ):
        flip(Path(backups) / "backups/000001.json")
        assert restored(backups, tmp_path, 4).keys() >= {"a"}
        assert restored(backups, tmp_path, 3).keys() >= {"new"}
        bad_newest.unlink()
        assert restored(backups, tmp_path).keys() >= {"a"}

    def test_record_is_told_of_by_the_next_backup_which_goes_on(self, index, bad_newest, backups, tmp_path, caplog):
        done = back_up(index, backups, keep=1)
        assert done.journal_sequence == 5
        passed, kept = caplog.messages
        assert f"a backup is passed over: {bad_newest}" in passed
        assert "no old backup is removed" in kept
        assert restored(backups, tmp_path) == items(index)
        bad_newest.unlink()
        back_up(index, backups, keep=1)
        assert backup_records.numbers(Place.at(backups)) == [5]

    def test_record_of_the_only_backup_keeps_the_next_from_nothing(self, index, backups, tmp_path):
        back_up(index, backups)
        flip(Path(backups) / "backups/000001.json")
        with pytest.raises(ArtifactError, match="no other backup is there that can be read"):
            restore(backups, tmp_path / "restored")
        with pytest.raises(CommandError, match="none of its records is as it was written"):
            restore(backups, tmp_path / "restored", 3)
        back_up(index, backups)
        assert restored(backups, tmp_path) == items(index)

    def test_record_of_a_later_format_is_not_passed_over(self, index, backups):
        back_up(index, backups)
        record = Path(backups) / "backups/000001.json"
        record.write_text(json.dumps(sealed({**json.loads(record.read_bytes()), "format": 2})))
        with pytest.raises(
            ArtifactError, match=r"has format 2, and this vmmr-search reads 1: use the one that wrote it"
        ):
            back_up(index, backups)

    def test_file_that_was_removed_is_copied_again(self, index, backups, tmp_path):
        back_up(index, backups)
        flip(path := max((Path(backups) / "files").iterdir(), key=lambda each: each.stat().st_size))
        with pytest.raises(
            ArtifactError, match=rf"^{path}: is damaged.*: remove this file, and the next backup copies it"
        ):
            restore(backups, tmp_path / "restored")
        path.unlink()
        back_up(index, backups)
        assert restored(backups, tmp_path) == items(index)

    def test_index_is_not_backed_up(self, index, backups):
        flip(index / "versions/000001/embeddings.npy")
        told = (
            rf"{index}/versions/000001/embeddings\.npy: is damaged: .*there is no other version: `vmmr-search restore`"
        )
        with pytest.raises(ArtifactError, match=told):
            back_up(index, backups)
        assert not Path(backups).exists()

    def test_index_that_lacks_a_file_is_not_backed_up(self, index, backups):
        (index / "versions/000001/embeddings.npy").unlink()
        with pytest.raises(ArtifactError, match=r"embeddings\.npy: is missing: there is no other version"):
            back_up(index, backups)

    def test_journal_is_not_backed_up(self, index, backups, damage):
        damage(index / "journal.db")
        with pytest.raises(ArtifactError, match=rf"{index}/journal\.db: (is damaged|ends with)") as caught:
            back_up(index, backups)
        assert not Path(backups).exists()
        assert "/tmp" not in caught.value.reason.replace(str(index), "")

    @pytest.mark.parametrize("damage", [DAMAGES["an entry"], DAMAGES["the end of the last write"]], indirect=True)
    def test_segment_that_is_as_it_was_backed_up_is_not_restored(self, index, backups, tmp_path, damage):
        back_up(index, backups)
        reseal_segment(Path(backups), damage, tmp_path)
        with pytest.raises(ArtifactError, match=r"backups/000001\.json: .*files/[0-9a-f]+: is damaged \(entry"):
            restore(backups, tmp_path / "restored")
        assert not (tmp_path / "restored").exists()

    def test_version_after_it_was_verified_is_not_restored(self, index, backups, tmp_path, monkeypatch):
        def damaged_meanwhile(place, local, name):
            if local.name == "embeddings.npy":
                flip(local)
            put(place, local, name)

        put = Place.put
        monkeypatch.setattr(Place, "put", damaged_meanwhile)
        back_up(index, backups)
        with pytest.raises(ArtifactError, match=r"files/[0-9a-f]+: is damaged: .*\(version 000001: embeddings\.npy\)"):
            restore(backups, tmp_path / "restored")


class TestRefused:
    def test_a_place_inside_of_the_index(self, index, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "link").symlink_to(index)
        for place in (f"{index}/backups", str(index), "index/a/b", f"file://{index}/backups", "link/backups"):
            with pytest.raises(CommandError, match="is inside of the index, and would be lost with it"):
                back_up(index, place)
        assert not (index / "backups").exists()

    def test_a_place_without_a_name(self, index):
        with pytest.raises(CommandError, match="the folder of backups has an empty name"):
            back_up(index, "")

    def test_a_place_that_cannot_be_made(self, index):
        with pytest.raises(CommandError, match=r"^/proc/x: no folder can be made there: No such file or directory$"):
            back_up(index, "/proc/x")

    def test_a_drill_with_what_is_no_index(self, index, backups, tmp_path):
        back_up(index, backups)
        with pytest.raises(ArtifactError, match=r"nothing/CURRENT: missing: no index was built here"):
            drill(backups, tmp_path / "nothing")

    def test_to_restore_to_a_full_disk_by_the_name_of_the_file_that_does_not_fit(self, index, backups, tmp_path):
        back_up(index, backups)
        largest = max((index / "versions/000001").iterdir(), key=lambda path: path.stat().st_size)
        limit = ("prlimit", f"--fsize={largest.stat().st_size - 1}")
        done = run("restore", backups, tmp_path / "restored", before=limit)
        assert done.returncode == 1
        assert f"error: {tmp_path}/restored/versions/000001/{largest.name}: File too large" in done.stderr

    def test_to_restore_a_journal_to_a_full_disk_by_its_name(self, index, backups, tmp_path, monkeypatch):
        def full(connection, rows):
            connection.execute("PRAGMA max_page_count = 1")
            insert(connection, ((n, "x", None, None, None, None, None, 1, 0) for n in range(1, 10**4)))

        insert = journal_segment._insert
        back_up(index, backups)
        monkeypatch.setattr(journal_segment, "_insert", full)
        with pytest.raises(OSError, match="No space left") as caught:
            restore(backups, tmp_path / "restored")
        assert caught.value.filename == f"{tmp_path}/restored/journal.db"

    def test_a_place_that_holds_something(self, index, tmp_path, backups):
        Path(backups).mkdir()
        (Path(backups) / "letter.txt").write_text("mine")
        with pytest.raises(CommandError, match="is there already, and no folder of backups"):
            back_up(index, backups)
        assert names(backups) == ["letter.txt"]

    def test_a_kind_of_place_that_there_is_not(self, index):
        with pytest.raises(CommandError, match=r"nowhere://x: Protocol not known"):
            back_up(index, "nowhere://x")

    def test_a_place_whose_library_has_errors_of_its_own(self, index, monkeypatch, tmp_path):
        """As botocore's NoCredentialsError, which is no OSError."""
        url = f"memory://{tmp_path.name}/backups"
        monkeypatch.setattr(
            fsspec.get_filesystem_class("memory"), "ls", Mock(side_effect=LookupError("no credentials"))
        )
        with pytest.raises(CommandError, match="/backups: LookupError: no credentials"):
            back_up(index, url)

    def test_to_restore_over_an_index(self, index, backups):
        back_up(index, backups)
        with pytest.raises(ArtifactError, match="already exists"):
            restore(backups, index)

    def test_to_restore_from_where_no_backup_ended(self, index, backups, tmp_path):
        back_up(index, backups)
        (Path(backups) / "backups/000001.json").unlink()
        for place in (backups, str(tmp_path / "nothing")):
            with pytest.raises(CommandError, match="is missing, or holds no backup that has ended"):
                restore(place, tmp_path / "restored")

    def test_to_restore_without_a_file_that_is_needed(self, index, backups, tmp_path):
        back_up(index, backups)
        needed = backup_records.read(Place.at(backups), 1, tmp_path).files
        (Path(backups) / next(iter(needed))).unlink()
        with pytest.raises(CommandError, match=rf"{backups}/files/[0-9a-f]+: is missing"):
            restore(backups, tmp_path / "restored")

    @pytest.mark.parametrize(
        ("part", "path"),
        [
            ("segment", ("segments", 0, "file", "sha256")),
            ("file of a version", ("versions", 0, "files", "manifest.json", "sha256")),
            ("version", ("versions", 0, "name")),
        ],
    )
    def test_to_restore_what_is_named_as_no_backup_names_it(self, index, backups, tmp_path, part, path):
        """Whoever can write to the folder of backups must not choose what is written elsewhere where they are restored."""
        back_up(index, backups)
        (tmp_path / "elsewhere").write_text("of another")
        record = Path(backups) / "backups/000001.json"
        fields = json.loads(record.read_bytes())
        *above, last = path
        named = fields
        for step in above:
            named = named[step]
        named[last] = f"../../{'../' * 20}{tmp_path}/elsewhere"
        record.write_text(json.dumps(sealed(fields)))
        with pytest.raises(ArtifactError, match=r"backups/000001\.json: is not as it was written: .*elsewhere"):
            restore(backups, tmp_path / "restored")
        assert (tmp_path / "elsewhere").read_text() == "of another"

    @pytest.mark.parametrize("outside", ["../elsewhere", "/elsewhere", "x/../../elsewhere"])
    def test_to_restore_files_outside_the_index(self, index, backups, tmp_path, outside):
        back_up(index, backups)
        record = Path(backups) / "backups/000001.json"
        fields = json.loads(record.read_bytes())
        fields["versions"][0]["files"][outside] = fields["versions"][0]["files"]["manifest.json"]
        record.write_text(json.dumps(sealed(fields)))
        with pytest.raises(CommandError, match="which is outside of its version"):
            restore(backups, tmp_path / "restored")


class TestOfAnEarlierRelease:
    """A folder of one backup."""

    @pytest.fixture
    def single(self, index, tmp_path):
        return make_single(index, tmp_path / "single")

    def test_is_restored(self, index, single, tmp_path):
        made = restore(str(single), tmp_path / "restored")
        assert (made.version, made.journal_sequence) == ("000001", 3)
        assert items(tmp_path / "restored") == items(index)

    def test_gets_no_second_backup(self, index, single):
        with pytest.raises(
            CommandError, match="holds a backup of an earlier release, which can be restored: name a new"
        ):
            back_up(index, str(single))

    def test_has_no_other_sequence(self, single, tmp_path):
        with pytest.raises(CommandError, match="it has no other sequence than its own"):
            restore(str(single), tmp_path / "restored", 2)

    def test_is_refused_with_a_damaged_journal_that_is_as_it_was_backed_up(self, single, tmp_path, damage):
        damage(single / "journal.db")
        resealed(single, "journal.db")
        with pytest.raises(ArtifactError, match=r"single/journal\.db: (is damaged|ends with)"):
            restore(str(single), tmp_path / "restored")
        assert not (tmp_path / "restored").exists()

    def test_is_refused_with_less_than_the_manifest_tells(self, single, tmp_path):
        resealed(single, journal_sequence=4)
        with pytest.raises(
            ArtifactError, match=r"single/manifest\.json: says .* journal to 4; there are .* journal to 3"
        ):
            restore(str(single), tmp_path / "restored")

    @pytest.mark.parametrize("name", ["versions/000001/embeddings.npy", "journal.db", "CURRENT"])
    def test_is_refused_with_a_damaged_file(self, single, tmp_path, name):
        flip(single / name)
        with pytest.raises(ArtifactError, match=f"single/{name}: is damaged"):
            restore(str(single), tmp_path / "restored")
        assert not (tmp_path / "restored").exists()

    def test_is_refused_if_a_file_is_missing(self, single, tmp_path):
        (single / "versions/000001/manifest.json").unlink()
        with pytest.raises(CommandError, match=r"single/versions/000001/manifest\.json: is missing"):
            restore(str(single), tmp_path / "restored")

    @pytest.mark.parametrize("outside", ["../elsewhere", "/elsewhere", "versions/../../elsewhere"])
    def test_is_refused_with_files_outside_the_index(self, single, tmp_path, outside):
        manifest = single / "manifest.json"
        fields = json.loads(manifest.read_bytes())
        fields["files"][outside] = fields["files"]["CURRENT"]
        manifest.write_text(json.dumps(sealed(fields)))
        with pytest.raises(CommandError, match="which is outside of it"):
            restore(str(single), tmp_path / "restored")

    def test_is_refused_with_an_edited_manifest(self, single, tmp_path):
        manifest = single / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"journal_sequence": 3', '"journal_sequence": 4'))
        with pytest.raises(ArtifactError, match=r"single/manifest\.json: is no manifest of a backup, or was edited"):
            restore(str(single), tmp_path / "restored")


def test_the_commands_say_what_they_did(index, backups, tmp_path):
    said = run("backup", index, backups, "--keep", 3).stdout
    assert said.startswith(f"{backups}: version 000001, journal to 3, ")
    assert run("restore", backups, tmp_path / "restored").stdout.startswith(f"{tmp_path}/restored: version")
    told = run("backup", tmp_path / "restored", backups).stderr
    assert "vmmr-search: warning: the folder of backups goes on with another history of its index" in told
    again = run("restore", backups, tmp_path / "restored")
    assert again.returncode == 1
    assert again.stderr.startswith("vmmr-search: error: ")


def make_single(index, folder):
    """A backup as releases before folders of backups made it."""
    shutil.copytree(index / "versions/000001", folder / "versions/000001")
    shutil.copy(index / "CURRENT", folder)
    with (
        closing(sqlite3.connect(index / "journal.db")) as source,
        closing(sqlite3.connect(folder / "journal.db")) as copy,
    ):
        source.backup(copy)
    listed = {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in file_names(folder)
    }
    fields = {"kind": "backup", "version": "000001", "journal_sequence": 3, "created": datetime.now(UTC).isoformat()}
    (folder / "manifest.json").write_text(json.dumps(sealed({**fields, "files": listed}), indent=2))
    return folder


def reseal_segment(folder, damage, work):
    """Damage the segment of a backup, and have its record say what it is now."""
    record = backup_records.read(Place.at(str(folder)), 1, work)
    [stored_segment] = record.segments
    path = folder / stored_segment.file.name
    damage(path)
    content = path.read_bytes()
    name = sha256(path)
    path.unlink()
    (folder / "files" / name).write_bytes(content)
    fields = json.loads((folder / "backups/000001.json").read_bytes())
    fields["segments"][0]["file"] = {"sha256": name, "bytes": len(content)}
    (folder / "backups/000001.json").write_text(json.dumps(sealed(fields)))


def resealed(backup_dir, *names, **fields):
    """Has the manifest of a backup say what its files are now, and whatever else is given."""
    manifest = backup_dir / "manifest.json"
    content = json.loads(manifest.read_bytes()) | fields
    for name in names:
        path = backup_dir / name
        content["files"][name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    manifest.write_text(json.dumps(sealed(content)))


def run(*arguments, before=()):
    command = [*before, sys.executable, "-m", "search_svc", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class TestRestoreIfAbsent:
    def run(self, *arguments):
        args = parser().parse_args(["restore", *map(str, arguments)])
        args.run(args)

    def test_makes_the_index_once_and_leaves_it_as_it_is_then(self, index, backups, tmp_path, capsys):
        back_up(index, backups)
        self.run("--if-absent", backups, tmp_path / "made")
        write(tmp_path / "made", Delete(("new",)))
        self.run("--if-absent", backups, tmp_path / "made")
        assert "left as it is" in capsys.readouterr().out
        assert "new" not in replayed(tmp_path / "made")

    def test_a_folder_that_is_no_index_is_not_taken_for_one(self, index, backups, tmp_path):
        back_up(index, backups)
        (tmp_path / "made").mkdir()
        with pytest.raises(ArtifactError, match="made/CURRENT: missing: no index was built here"):
            self.run("--if-absent", backups, tmp_path / "made")

    def test_without_it_an_index_that_is_there_is_an_error(self, index, backups):
        back_up(index, backups)
        with pytest.raises(ArtifactError, match="already exists"):
            self.run(backups, index)
