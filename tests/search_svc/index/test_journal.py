import dataclasses
import gc
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.index import journal_file, journal_loss, journal_mark, journal_transactions, journal_writer
from search_svc.index.journal import Entry, Journal
from search_svc.index.journal_file import connect_to_mend
from search_svc.index.journal_mark import Mark
from search_svc.index.journal_pruning import prune
from search_svc.index.journal_transactions import JournalTransactions
from search_svc.index.repair import _copied, _is_well
from search_svc.index.write_trouble import WriteTrouble
from search_svc.index.writes import Add, Delete, WriteResult
from svckit.artifact import ArtifactError
from svckit.errors import Reason, ServiceError
from tests.search_svc.journals import (
    CAR,
    MODEL,
    NO_CAR,
    D,
    DictBase,
    applied,
    make_format_1,
    replayed,
    sequence,
    stored,
    writer,
    written,
)

ROOT = Path(__file__).parents[3]


def start(index_dir, name):
    """A program that writes until it is killed; see journal_program.py."""
    command = [sys.executable, "-m", "tests.search_svc.journal_program", index_dir, name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


READING_ALONE = """
import os, sys
from contextlib import closing
from pathlib import Path
from search_svc.index.journal import Journal
os.setuid(65534)
journal = Journal.open(Path(sys.argv[1]))
for _ in sys.stdin:
    print(journal.changed(), journal.sequence(), len(journal.read(0, 100)), flush=True)
"""


class TestReading:
    def test_an_index_without_a_journal_has_an_empty_one_and_stays_without(self, tmp_path):
        with Journal.open(tmp_path) as journal:
            assert (journal.sequence(), journal.read(0, 10), journal.model) == (0, [], None)
            assert not journal.changed()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="being another user takes root")
    def test_who_may_not_write_beside_it_reads_what_others_write_from_then_on(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            written(folder, Add({"x": stored()}))
            command = [sys.executable, "-c", READING_ALONE, folder]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
            with subprocess.Popen(command, cwd=ROOT, **pipes) as reader:

                def told():
                    print(file=reader.stdin)
                    return reader.stdout.readline().strip()

                assert (told(), told()) == ("True 1 1", "False 1 1")
                journal = writer(folder)
                journal.commit([Add({"y": stored()})])
                assert (told(), told()) == ("True 2 2", "False 2 2")
                journal.close()
                written(folder, Add({"z": stored()}))
                assert told() == "True 3 3"
                reader.stdin.close()

    @pytest.mark.skipif(os.geteuid() != 0, reason="being another user takes root")
    def test_who_may_not_write_beside_it_reads_it_beside_an_empty_log(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            written(folder, Add({"x": stored()}))
            (folder / "journal.db-wal").touch()
            command = [sys.executable, "-c", READING_ALONE, folder]
            done = subprocess.run(command, cwd=ROOT, input="\n", capture_output=True, text=True, check=False)
            assert done.stdout == "True 1 1\n", done.stderr

    def test_what_was_written_is_read_in_order(self, tmp_path):
        item = stored(uri="a.jpg", batch_id="may", attributes={"dealer": "ü"})
        written(tmp_path, Add({"x": item}), Delete(("x",)), Add({"y": stored()}))
        with Journal.open(tmp_path) as journal:
            assert journal.read(0, 10) == [Entry(1, "x", item), Entry(2, "x", None), Entry(3, "y", stored())]
            assert journal.read(2, 10) == [Entry(3, "y", stored())]
            assert journal.sequence() == 3

    @pytest.mark.parametrize("cut", [None, CAR, NO_CAR])
    @pytest.mark.parametrize("attributes", [{}, {"dealer": "7", "a": "ü"}])
    def test_what_of_a_photo_was_embedded_is_kept_with_it(self, tmp_path, cut, attributes):
        item = stored(attributes=attributes, cut=cut)
        written(tmp_path, Add({"x": item}))
        assert replayed(tmp_path) == {"x": item}

    def test_an_item_without_a_cut_is_written_as_before_there_were_cuts(self, tmp_path):
        """So a vmmr of before reads all that is written without them, and its journals are read here."""
        item = stored("honda_pilot_2011", uri="a.jpg", batch_id="may", attributes={"b": "ü", "a": "1"})
        written(tmp_path, Add({"x": item}))
        with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
            ((text, stated),) = connection.execute("SELECT attributes, checksum FROM entries")
        assert text == '{"a": "1", "b": "ü"}'
        named = json.dumps([1, "x", "honda_pilot_2011", "a.jpg", "may", text, 1]).encode()
        assert stated == zlib.crc32(item.embedding, zlib.crc32(named))

    def test_a_cut_is_in_a_row_that_a_vmmr_of_before_takes_for_true(self, tmp_path):
        written(tmp_path, Add({"x": stored(attributes={"a": "1"}, cut=CAR), "y": stored(cut=NO_CAR)}))
        with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
            ((form,),) = connection.execute("PRAGMA user_version")
            found = list(
                connection.execute(
                    "SELECT sequence, item_id, label, uri, batch_id, attributes, embedding, closes, checksum FROM entries"
                )
            )
        assert form == 2
        for *texts, embedding, closes, stated in found:
            assert stated == zlib.crc32(embedding, zlib.crc32(json.dumps([*texts, closes]).encode()))
        assert [row[5] for row in found] == [
            '[{"a": "1"}, [0.25, 0.125, 0.75, 1.0, 0.875, false]]',
            "[{}, [0.0, 0.0, 1.0, 1.0, null, true]]",
        ]

    def test_a_cut_that_has_become_another_is_found(self, tmp_path):
        written(tmp_path, Add({"x": stored(cut=CAR)}))
        with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
            connection.execute("UPDATE entries SET attributes = replace(attributes, '0.875', '0.625')")
            connection.commit()
        with Journal.open(tmp_path) as journal, pytest.raises(ArtifactError, match="entry 1 is not what was written"):
            journal.read(0, 10)

    def test_the_same_item_cut_another_way_is_another(self, tmp_path):
        whole = stored(number=1)
        first, again, other = written(
            tmp_path, Add({"x": whole}), Add({"x": whole}), Add({"x": dataclasses.replace(whole, cut=CAR)})
        )
        assert [(done.added, done.replaced, done.unchanged) for done in (first, again, other)] == [
            (1, 0, 0),
            (0, 0, 1),
            (0, 1, 0),
        ]

    def test_a_write_is_never_read_in_parts(self, tmp_path):
        written(tmp_path, Add({f"a{n}": stored() for n in range(5)}), Add({f"b{n}": stored() for n in range(5)}))
        with Journal.open(tmp_path) as journal:
            assert [len(journal.read(0, limit)) for limit in (1, 4, 5, 6, 100)] == [5, 5, 5, 10, 10]
            assert len(journal.read(2, 1)) == 3

    def test_a_reader_that_was_open_before_the_first_write_sees_it(self, tmp_path):
        with Journal.open(tmp_path) as journal:
            written(tmp_path, Add({"x": stored()}))
            assert journal.changed()
            assert journal.sequence() == 1

    def test_tells_once_that_somebody_wrote(self, tmp_path):
        written(tmp_path, Add({"x": stored()}))
        with Journal.open(tmp_path) as journal:
            assert journal.changed()
            assert not journal.changed()
            written(tmp_path, Add({"y": stored()}))
            assert journal.changed()
            assert not journal.changed()

    def test_the_last_entry_of_an_item_counts(self, tmp_path):
        written(tmp_path, Add({"x": stored("a")}), Add({"x": stored("b", batch_id="may")}), Add({"y": stored("b")}))
        with Journal.open(tmp_path) as journal:
            assert journal.last("x", 0) == Entry(2, "x", stored("b", batch_id="may"))
            assert (journal.last("x", 2), journal.last("z", 0)) == (None, None)
            assert (journal.of_label("a", 0), journal.of_label("b", 0), journal.of_label("b", 2)) == (
                [],
                ["x", "y"],
                ["y"],
            )
            assert (journal.of_batch("may", 0), journal.of_batch("june", 0)) == (["x"], [])

    def test_of_its_beginnings_nothing_is_read(self, tmp_path):
        sqlite3.connect(tmp_path / "journal.db").close()
        assert sequence(tmp_path) == 0
        written(tmp_path, Add({"x": stored()}))
        assert sequence(tmp_path) == 1


def test_its_size_is_that_of_the_files_that_there_are(tmp_path):
    path = tmp_path / "journal.db"
    assert journal_file.size(path) == 0
    journal = writer(tmp_path)
    journal.commit([Add({"x": stored()})])
    (tmp_path / "journal.db.damaged-20261128T000000").write_bytes(bytes(1000))
    parts = [(tmp_path / f"journal.db{suffix}").stat().st_size for suffix in ("", "-wal", "-shm")]
    assert all(parts)
    assert journal_file.size(path) == sum(parts)
    journal.close()
    assert journal_file.size(path) == path.stat().st_size


ids, labels, batches = (
    st.sampled_from("abcdef"),
    st.sampled_from(["x_y_2001", "x_y_2002"]),
    st.sampled_from(["", "may", "june"]),
)
items = st.builds(stored, labels, st.integers(0, 2), batch_id=batches)
writes = st.one_of(
    st.dictionaries(ids, items, min_size=1).map(Add),
    st.lists(ids, min_size=1).map(lambda some: Delete(tuple(some))),
    labels.map(lambda label: Delete(label=label)),
    st.sampled_from(["may", "june"]).map(lambda batch: Delete(batch_id=batch)),
)


@given(st.dictionaries(ids, items), st.lists(st.lists(writes, min_size=1, max_size=4), max_size=8))
def test_base_and_journal_are_the_gallery_a_dict_would_be_and_outcomes_count_what_changed(
    tmp_path_factory, base, batches
):
    directory = tmp_path_factory.mktemp("index")
    base = DictBase(base)
    gallery, journal, before = base.items, writer(directory, base), 0
    for batch in batches:
        for write, outcome in zip(batch, journal.commit(batch), strict=True):
            after = applied(gallery, write)
            assert (outcome.added, outcome.deleted) == (len(after.keys() - gallery), len(gallery.keys() - after))
            assert outcome.replaced == sum(gallery[key] != after[key] for key in gallery.keys() & after)
            assert outcome.sequence == before + outcome.added + outcome.replaced + outcome.deleted
            gallery, before = after, outcome.sequence
    journal.close()
    assert replayed(directory, base) == gallery
    shutil.rmtree(directory)


def test_the_same_write_again_changes_nothing_and_says_so(tmp_path):
    base = DictBase({"base": stored("b")})
    add = Add({"x": stored("a"), "base": stored("b")})
    assert written(tmp_path, add, add, base=base) == [WriteResult(1, added=1, unchanged=1), WriteResult(1, unchanged=2)]
    assert written(tmp_path, Delete(("x",)), Delete(("x",)), base=base) == [
        WriteResult(2, deleted=1, gone={"x": "a"}),
        WriteResult(2),
    ]
    (replaced,) = written(tmp_path, Add({"base": stored("c"), "new": stored("d")}), base=base)
    assert replaced == WriteResult(4, added=1, replaced=1, gone={"base": "b"})


class TestPruning:
    def test_takes_entries_out_and_never_gives_their_numbers_again(self, tmp_path):
        written(tmp_path, Add({"x": stored(), "y": stored()}), Delete(("x",)))
        prune(tmp_path, 3)
        with Journal.open(tmp_path) as journal:
            assert (journal.sequence(), journal.pruned, journal.read(3, 10)) == (3, 3, [])
        assert written(tmp_path, Add({"z": stored()}), base=DictBase(journal_sequence=3)) == [WriteResult(4, added=1)]

    def test_who_needs_what_was_pruned_is_told_so(self, tmp_path):
        written(tmp_path, Add({"x": stored()}), Add({"y": stored()}))
        prune(tmp_path, 1)
        with (
            Journal.open(tmp_path) as journal,
            pytest.raises(ArtifactError, match=r"journal\.db: its entries up to 1 were pruned"),
        ):
            journal.read(0, 10)
        (outcome,) = written(tmp_path, Add({"z": stored()}))
        assert (outcome.reason, outcome.retry_after_s) == (Reason.JOURNAL_UNWRITABLE, 1.0)
        assert sequence(tmp_path) == 2

    def test_gives_the_room_back(self, tmp_path):
        written(tmp_path, Add({str(n): stored(uri=1000 * "u") for n in range(3000)}))
        size = (tmp_path / "journal.db").stat().st_size
        prune(tmp_path, 3000)
        with Journal.open(tmp_path) as journal:
            assert (journal.sequence(), journal.read(3000, 10)) == (3000, [])
        assert (tmp_path / "journal.db").stat().st_size < size / 20

    def test_ends_even_if_the_file_keeps_its_room(self, tmp_path):
        written(tmp_path, Add({str(n): stored(uri=1000 * "u") for n in range(100)}))
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
            other.executescript("PRAGMA auto_vacuum = NONE; VACUUM")
        prune(tmp_path, 100)
        with Journal.open(tmp_path) as journal:
            assert (journal.sequence(), journal.read(100, 10)) == (100, [])


class TestRefusals:
    def test_a_journal_of_another_model(self, tmp_path):
        written(tmp_path, Add({"x": stored()}))
        (outcome,) = written(tmp_path, Add({"y": stored()}), base=DictBase(model="f" * 64))
        assert outcome.reason == Reason.JOURNAL_UNWRITABLE
        assert "the journal is of the model c0ffee000000, the index of ffffffffffff" in str(outcome)

    def test_items_that_were_read_for_another_model_than_the_index_is_of_now(self, tmp_path):
        old, new = written(tmp_path, Add({"x": stored()}, model="f" * 64), Add({"y": stored()}, model=DictBase().model))
        assert old.reason is Reason.MODEL_MISMATCH
        assert old.metadata == {"expected": DictBase().model, "got": "f" * 64}
        assert (new.sequence, set(replayed(tmp_path))) == (1, {"y"})

    def test_one_failing_write_fails_alone(self, tmp_path):
        class Failing(DictBase):
            def item(self, item_id):
                if item_id == "bad":
                    raise ServiceError(Reason.INVALID_ITEM, "bad")
                return super().item(item_id)

        journal = writer(tmp_path, Failing())
        outcomes = journal.commit([Add({"x": stored()}), Add({"y": stored(), "bad": stored()}), Add({"z": stored()})])
        assert [type(outcome) for outcome in outcomes] == [WriteResult, ServiceError, WriteResult]
        assert replayed(tmp_path).keys() == {"x", "z"}

    def test_what_a_failing_write_has_begun_is_not_there(self, tmp_path):
        unwritable = stored(uri="\ud800")
        outcomes = writer(tmp_path).commit(
            [Add({"x": stored()}), Add({"y": stored(), "bad": unwritable}), Delete(("x",))]
        )
        assert [type(outcome) for outcome in outcomes] == [WriteResult, UnicodeEncodeError, WriteResult]
        assert replayed(tmp_path) == {}
        with Journal.open(tmp_path) as journal:
            assert journal.sequence() == 2

    def test_a_write_that_nobody_waits_for(self, tmp_path):
        late, due = writer(tmp_path).commit([Add({"x": stored()}, time.monotonic() - 1), Add({"y": stored()})])
        assert (late.reason, due) == (Reason.DEADLINE_EXCEEDED, WriteResult(1, added=1))

    def test_waiting_for_another_writer_ends_with_the_deadline(self, tmp_path, monkeypatch):
        monkeypatch.setattr("search_svc.index.journal_transactions.LONGEST_WAIT_S", 3600.0)
        written(tmp_path, Add({"x": stored()}))
        other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        (outcome,) = writer(tmp_path).commit([Add({"y": stored()}, started + 0.2)])
        assert (outcome.reason, outcome.retry_after_s) == (Reason.JOURNAL_UNWRITABLE, 1.0)
        assert time.monotonic() - started >= 0.2
        other.execute("ROLLBACK")
        assert written(tmp_path, Add({"y": stored()})) == [WriteResult(2, added=1)]


@pytest.fixture
def no_file_grows():
    """Switches it on: to write beyond the given size is an error of the disk's (EFBIG) then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestDiskErrors:
    def test_of_a_commit_that_failed_nobody_is_told_that_nothing_was_written(self, tmp_path, no_file_grows):
        journal = writer(tmp_path)
        journal.commit([Add({"x": stored()})])
        no_file_grows((tmp_path / "journal.db-wal").stat().st_size)
        (outcome,) = journal.commit([Add({"y": stored()})])
        assert outcome.reason is Reason.JOURNAL_UNWRITABLE
        assert str(outcome).endswith("(disk I/O error): the write may be there after a crash; send it again")

    def test_of_a_write_that_failed_before_its_commit_it_is_told_that_nothing_was_written(
        self, tmp_path, no_file_grows
    ):
        class Failing(DictBase):
            def item(self, item_id):
                journal._transactions.connection.execute(
                    "PRAGMA cache_size = 2"
                )  # so that pages are written before the end
                no_file_grows((tmp_path / "journal.db-wal").stat().st_size)

        journal = writer(tmp_path, Failing())
        written(tmp_path, Add({"x": stored()}))
        (outcome,) = journal.commit([Add({str(n): stored(uri=2000 * "u") for n in range(200)})])
        assert outcome.reason is Reason.JOURNAL_UNWRITABLE
        assert str(outcome) == "journal.db cannot be written (disk I/O error): nothing was written"


class TestWhatTheLogSays:
    """Of a journal that cannot be written: an error when that begins, one line when it is over, and nothing between."""

    @pytest.fixture
    def journal(self, tmp_path):
        """One with an entry, to which `limit(pages)` leaves room for so many pages more."""
        journal = writer(tmp_path)
        journal.commit([Add({"x": stored()})])
        yield journal
        journal.close()

    @staticmethod
    def limit(journal, pages):
        connection = journal._transactions.connection
        ((used,),) = connection.execute("PRAGMA page_count")
        connection.execute(f"PRAGMA max_page_count = {used + pages}")

    @staticmethod
    def said(caplog):
        return [
            (record.levelname, record.message, getattr(record, "reason", None))
            for record in caplog.records
            if record.name == "search_svc.index.write_trouble"
        ]

    FULL = ("ERROR", "the journal cannot be written", "JOURNAL_FULL")
    WELL = ("INFO", "the journal is written again", None)

    def test_full_is_said_once_and_again_when_it_was_well_between(self, journal, caplog):
        caplog.set_level("INFO")
        large = [Add({str(part): stored(uri=5000 * "u") for part in range(9)})]
        for number in range(2):
            self.limit(journal, 0)
            for _ in range(3):
                assert [outcome.reason for outcome in journal.commit(large)] == [Reason.JOURNAL_FULL]
            assert journal.commit([Add({"x": stored()})])[0].unchanged == 1, "which shows nothing"
            self.limit(journal, 1000)
            assert journal.commit([Add({f"y {number}": stored()})])[0].added == 1
        assert self.said(caplog) == 2 * [self.FULL, self.WELL]
        (path,) = {record.journal for record in caplog.records if hasattr(record, "journal")}
        assert path == str(journal.path)

    def test_another_reason_is_said_too_and_a_journal_that_is_busy_is_well(self, journal, caplog):
        trouble = WriteTrouble(journal.path)
        trouble.heard([ServiceError(Reason.JOURNAL_UNWRITABLE, "busy", retry_after_s=1.0)])
        assert self.said(caplog) == []
        for reason in (Reason.JOURNAL_FULL, Reason.JOURNAL_UNWRITABLE, Reason.JOURNAL_UNWRITABLE):
            trouble.heard([WriteResult(1, added=1), ServiceError(reason, "no")])
        assert [reason for _, _, reason in self.said(caplog)] == ["JOURNAL_FULL", "JOURNAL_UNWRITABLE"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_is_read_only_is_said(self, tmp_path, caplog):
        tmp_path.chmod(0o500)
        journal = writer(tmp_path)
        for _ in range(2):
            assert [outcome.reason for outcome in journal.commit([Add({"x": stored()})])] == [Reason.JOURNAL_UNWRITABLE]
        assert [reason for _, _, reason in self.said(caplog)] == ["JOURNAL_UNWRITABLE"]


class TestRefusalsForNow:
    """What says nothing of the file needs no other connection, which would read all of it first."""

    @pytest.fixture
    def connections(self, monkeypatch):
        """Counts those that are made to write."""
        made, transactions = [], journal_writer.JournalTransactions

        def counted(*arguments):
            made.append(transactions(*arguments))
            return made[-1]

        monkeypatch.setattr(journal_writer, "JournalTransactions", counted)
        return made

    def test_for_want_of_room_leave_the_connection_as_it_is(self, tmp_path, connections):
        journal = writer(tmp_path)
        journal.commit([Add({"x": stored()})])
        (first,) = connections
        ((pages,),) = first.connection.execute("PRAGMA page_count")
        first.connection.execute(f"PRAGMA max_page_count = {pages}")
        large = [Add({f"{n} {part}": stored(uri=5000 * "u") for part in range(9)}) for n in range(3)]
        assert [outcome.reason for outcome in journal.commit(large)] == [Reason.JOURNAL_FULL] * 3
        first.connection.execute("PRAGMA max_page_count = 1000000")
        assert journal.commit([Add({"y": stored()})]) == [WriteResult(2, added=1)]
        journal.close()
        assert len(connections) == 1
        assert replayed(tmp_path).keys() == {"x", "y"}

    def test_of_a_server_that_is_behind_leave_the_connection_as_it_is(self, tmp_path, connections):
        base = DictBase()
        journal = writer(tmp_path, base)
        journal.commit([Add({"x": stored()})])
        base.journal_sequence = 9
        for _ in range(3):
            (outcome,) = journal.commit([Add({"y": stored()})])
            assert outcome.reason is Reason.JOURNAL_UNWRITABLE
        base.journal_sequence = 0
        assert journal.commit([Add({"y": stored()})]) == [WriteResult(2, added=1)]
        journal.close()
        assert len(connections) == 1

    def test_while_another_writes_leave_the_connection_as_it_is(self, tmp_path, connections):
        journal = writer(tmp_path)
        journal.commit([Add({"x": stored()})])
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            (outcome,) = journal.commit([Add({"y": stored()}, time.monotonic())])
        assert (outcome.reason, outcome.retry_after_s) == (Reason.JOURNAL_UNWRITABLE, 1.0)
        assert journal.commit([Add({"y": stored()})]) == [WriteResult(2, added=1)]
        journal.close()
        assert len(connections) == 1


class TestDamage:
    def test_a_file_that_is_none_is_named(self, tmp_path):
        (tmp_path / "journal.db").write_bytes(b"no database" * 1000)
        with pytest.raises(ArtifactError, match=r"journal\.db: is damaged .*: `vmmr-search repair .*` saves what"):
            Journal.open(tmp_path)
        (outcome,) = written(tmp_path, Add({"x": stored()}))
        assert outcome.reason == Reason.JOURNAL_UNWRITABLE
        assert "journal.db is damaged" in str(outcome)

    def test_another_database_is_left_alone(self, tmp_path):
        other = sqlite3.connect(tmp_path / "journal.db")
        other.execute("CREATE TABLE entries (x)")
        other.close()
        for attempt in (lambda: Journal.open(tmp_path), lambda: _raise(written(tmp_path, Add({"x": stored()}))[0])):
            with pytest.raises(ArtifactError, match=r"SQLite file of another program.*vmmr-search repair"):
                attempt()

    def test_a_bit_that_flipped_in_an_embedding_is_found(self, tmp_path):
        written(tmp_path, Add({"x": stored(number=1)}))
        file = tmp_path / "journal.db"
        content = bytearray(file.read_bytes())
        content[content.index(stored(number=1).embedding) + 3] ^= 1
        file.write_bytes(content)
        with Journal.open(tmp_path) as journal, pytest.raises(ArtifactError, match="entry 1 is not what was written"):
            journal.read(0, 10)

    def test_one_of_a_later_format_is_not_read(self, tmp_path):
        written(tmp_path, Add({"x": stored()}))
        later = sqlite3.connect(tmp_path / "journal.db")
        later.execute("PRAGMA user_version = 3")
        later.close()
        with pytest.raises(
            ArtifactError, match=r"has format 3; this vmmr-search reads 2: use the .*, and a backup helps"
        ):
            Journal.open(tmp_path)

    @pytest.mark.parametrize("form", [0, 130])
    def test_a_format_that_there_cannot_be_is_damage(self, tmp_path, form):
        written(tmp_path, Add({"x": stored()}))
        with closing(sqlite3.connect(tmp_path / "journal.db")) as other:
            other.execute(f"PRAGMA user_version = {form}")
        with pytest.raises(ArtifactError, match=f"is damaged .*its format is {form}.: `vmmr-search repair"):
            Journal.open(tmp_path)

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE entries SET closes = 0 WHERE sequence = 3",
            "UPDATE entries SET sequence = 7 WHERE sequence = 3",
            "DELETE FROM entries WHERE sequence = 3",
            "DELETE FROM entries WHERE sequence = 2",
            "UPDATE meta SET value = 'c0fffe' WHERE name = 'model'",
            "UPDATE meta SET value = 9 WHERE name = 'dimension'",
            "UPDATE meta SET value = 1 WHERE name = 'pruned'",
            "UPDATE meta SET name = 'prunee' WHERE name = 'pruned'",
        ],
    )
    def test_whatever_steers_reading_is_found_to_be_another_by_who_reads_who_writes_and_repair(self, tmp_path, change):
        written(tmp_path, *(Add({name: stored()}) for name in "xyz"))
        with closing(sqlite3.connect(tmp_path / "journal.db")) as other, other:
            other.execute(change)
        with (
            pytest.raises(ArtifactError, match=r"journal\.db: .*`vmmr-search repair"),
            Journal.open(tmp_path) as journal,
        ):
            journal.read(0, 10)
        with _copied(tmp_path / "journal.db") as copy:
            assert not _is_well(copy)

    def test_an_index_that_lacks_an_entry_is_found_before_it_is_asked(self, tmp_path):
        written(tmp_path, *(Add({name: stored()}) for name in "xyz"))
        content = bytearray((tmp_path / "journal.db").read_bytes())
        content[_in_index(content)] ^= 1
        (tmp_path / "journal.db").write_bytes(content)
        with Journal.open(tmp_path) as journal, pytest.raises(ArtifactError, match="index entries_of_item"):
            journal.last("y", 0)
        (outcome,) = written(tmp_path, Add({"new": stored()}))
        assert "entries_of_item" in str(outcome)

    @pytest.mark.parametrize("seed", range(10))
    def test_a_bit_of_the_log_that_flipped_loses_nothing_that_was_acknowledged_in_silence(self, tmp_path, seed):
        live, kept = tmp_path / "live", tmp_path / "kept"
        live.mkdir()
        journal = writer(live)
        for number in range(6):
            journal.commit([Add({str(number): stored(number=number)})])
        journal.commit([Add({f"of 40, {number}": stored(number=number) for number in range(40)})])
        shutil.copytree(live, kept, ignore=shutil.ignore_patterns("*-shm"))
        log, rng = bytearray((kept / "journal.db-wal").read_bytes()), random.Random(seed)
        log[rng.randrange(len(log))] ^= 1 << rng.randrange(8)
        (kept / "journal.db-wal").write_bytes(log)
        with pytest.raises(ArtifactError, match=r"journal\.db: .*`vmmr-search repair"), Journal.open(kept):
            pass
        (outcome,) = written(kept, Add({"new": stored()}))
        assert isinstance(outcome, ArtifactError), "what is written now would come before what is lost"

    @pytest.mark.parametrize("refused", ["a write", "a checkpoint"])
    def test_the_log_of_one_that_is_refused_stays_for_a_repair(self, tmp_path, refused):
        live, kept = tmp_path / "live", tmp_path / "kept"
        live.mkdir()
        journal = writer(live)
        for number in range(6):
            journal.commit([Add({str(number): stored(number=number)})])
        shutil.copytree(live, kept, ignore=shutil.ignore_patterns("*-shm"))
        log = bytearray((kept / "journal.db-wal").read_bytes())
        log[len(log) // 2] ^= 1
        (kept / "journal.db-wal").write_bytes(log)
        database = (kept / "journal.db").read_bytes()
        if refused == "a write":
            (outcome,) = writer(kept).commit([Add({"new": stored()})])
            assert "entries up to 6 were acknowledged" in str(outcome)
        else:
            journal_file.checkpoint(kept / "journal.db")
        assert ((kept / "journal.db-wal").read_bytes(), (kept / "journal.db").read_bytes()) == (log, database)
        journal.close()

    def test_the_log_beside_an_empty_file_stays_for_a_repair(self, tmp_path):
        live, kept = tmp_path / "live", tmp_path / "kept"
        live.mkdir()
        journal = writer(live)
        journal.commit([Add({"x": stored()})])
        shutil.copytree(live, kept, ignore=shutil.ignore_patterns("*-shm"))
        journal.close()
        log = (kept / "journal.db-wal").read_bytes()
        (kept / "journal.db").write_bytes(b"")
        with pytest.raises(ArtifactError, match="is empty, and entries up to 1 were acknowledged"):
            Journal.open(kept)
        (outcome,) = written(kept, Add({"y": stored()}))
        assert "entries up to 1 were acknowledged" in str(outcome)
        assert (kept / "journal.db-wal").read_bytes() == log

    def test_a_journal_that_is_gone_is_missed(self, tmp_path):
        written(tmp_path, Add({"x": stored()}))
        (tmp_path / "journal.db").unlink()
        said = "is missing, and entries up to 1 were acknowledged"
        with pytest.raises(ArtifactError, match=said):
            Journal.open(tmp_path)
        (outcome,) = written(tmp_path, Add({"y": stored()}))
        assert said in str(outcome)


class TestLoss:
    @pytest.fixture
    def torn(self, tmp_path):
        """Three writes, of which the log has lost the last."""
        live, kept = tmp_path / "live", tmp_path / "kept"
        live.mkdir()
        journal = writer(live)
        for name in "xyz":
            journal.commit([Add({name: stored()})])
        shutil.copytree(live, kept, ignore=shutil.ignore_patterns("*-shm"))
        journal.close()
        log = kept / "journal.db-wal"
        log.write_bytes(log.read_bytes()[:-4000])
        return kept

    def test_of_two_processes_that_accept_it_at_once_one_does(self, torn, monkeypatch):
        log = (torn / "journal.db-wal").read_bytes()
        is_whole = journal_loss._is_whole

        def overtaken(path, mark):
            whole = is_whole(path, mark)
            monkeypatch.setattr(journal_loss, "_is_whole", is_whole)
            assert journal_loss.accept(torn) == 1
            return whole

        monkeypatch.setattr(journal_loss, "_is_whole", overtaken)
        with closing(journal_file.connect_to_read(torn / "journal.db")):  # so the log stays
            assert journal_loss.accept(torn) == 0
        (copy,) = torn.glob("journal.db-wal.damaged-*")
        assert copy.read_bytes() == log
        with Journal.open(torn) as journal:
            assert (journal.sequence(), journal.lost()) == (3, 1)

    def test_a_copy_of_the_log_takes_no_other_one_s_place(self, torn, monkeypatch):
        monkeypatch.setattr(journal_file.time, "strftime", lambda _: "now")
        before = torn / "journal.db-wal.damaged-now"
        before.write_bytes(b"before")
        log = (torn / "journal.db-wal").read_bytes()
        assert journal_loss.accept(torn) == 1
        assert before.read_bytes() == b"before"
        assert (torn / "journal.db-wal.damaged-now-2").read_bytes() == log


class TestMark:
    def test_without_it_or_with_one_that_is_damaged_nobody_reads_or_writes(self, tmp_path):
        written(tmp_path, Add({"x": stored()}))
        mark = tmp_path / "journal.mark"
        content = bytearray(mark.read_bytes())
        content[0] ^= 1
        content[4096] ^= 1
        for break_, said in ((lambda: mark.write_bytes(content), "is damaged"), (mark.unlink, "is missing")):
            break_()
            with pytest.raises(ArtifactError, match=rf"journal\.mark: {said}.*`vmmr-search repair"):
                Journal.open(tmp_path)
            (outcome,) = written(tmp_path, Add({"y": stored()}))
            assert said in str(outcome)

    def test_one_slot_that_is_damaged_costs_nothing(self, tmp_path):
        written(tmp_path, Add({"x": stored()}), Add({"y": stored()}))
        content = (tmp_path / "journal.mark").read_bytes()
        for at in (20, 4116):
            (tmp_path / "journal.mark").write_bytes(content[:at] + b"?" + content[at + 1 :])
            assert replayed(tmp_path).keys() == {"x", "y"}
        assert written(tmp_path, Add({"z": stored()}))[0].sequence == 3
        assert journal_mark.read(tmp_path / "journal.db") == Mark(3, 0)

    def test_says_what_was_acknowledged_and_only_ever_more(self, tmp_path):
        path = tmp_path / "journal.db"
        written(tmp_path, Add({"x": stored(), "y": stored()}))
        assert journal_mark.read(path) == Mark(2, 0)
        journal_mark.advance(path, Mark(1, 0))
        assert journal_mark.read(path) == Mark(2, 0)
        prune(tmp_path, 2)
        assert journal_mark.read(path) == Mark(2, 2)

    def test_each_of_several_writers_sees_what_the_others_have_raised_it_to(self, tmp_path):
        path = tmp_path / "journal.db"
        journal_mark.create(path, Mark(0, 0))
        with journal_mark.MarkFile(path) as one, journal_mark.MarkFile(path) as other:
            for number in range(1, 6):
                one.advance(Mark(2 * number, 0))
                other.advance(Mark(2 * number + 1, number))
                one.advance(Mark(2 * number, 0))
                assert (one.read(), other.read(), journal_mark.read(path)) == 3 * (Mark(2 * number + 1, number),)

    def test_a_writer_that_is_open_adds_nothing_to_a_journal_that_lacks_its_end(self, tmp_path):
        journal = writer(tmp_path)
        journal.commit([Add({"x": stored()})])
        journal_mark.advance(tmp_path / "journal.db", Mark(5, 0))
        (outcome,) = journal.commit([Add({"y": stored()})])
        assert "ends with entry 1, and entries up to 5 were acknowledged" in str(outcome)

    def test_a_writer_that_is_open_misses_a_mark_that_was_removed(self, tmp_path):
        journal = writer(tmp_path)
        journal.commit([Add({"x": stored()})])
        (tmp_path / "journal.mark").unlink()
        (outcome,) = journal.commit([Add({"y": stored()})])
        assert "journal.mark: is missing" in str(outcome)

    @pytest.mark.parametrize("how", ["replaced", "moved"])
    @pytest.mark.parametrize("name", ["journal.db", "journal.db-wal"])
    def test_a_writer_that_is_open_acknowledges_nothing_where_nobody_will_read_it(self, tmp_path, name, how):
        index = tmp_path / "index"
        index.mkdir()
        journal = writer(index)
        journal.commit([Add({"x": stored()})])
        if how == "replaced":
            shutil.copy(index / name, index / "copy")
            (index / "copy").replace(index / name)
        else:
            index.rename(tmp_path / "aside")
            shutil.copytree(tmp_path / "aside", index)
        for _ in range(3):
            (outcome,) = journal.commit([Add({"y": stored()})])
            assert "was moved, removed or replaced while it was open" in str(outcome)
            assert "y" not in replayed(index)

    def test_a_writer_goes_on_by_another_mark_that_a_process_that_accepted_a_loss_has_put_there(self, tmp_path):
        journal = writer(tmp_path)
        journal.commit([Add({"x": stored()})])
        shutil.copy(tmp_path / "journal.mark", tmp_path / "copy")
        (tmp_path / "copy").replace(tmp_path / "journal.mark")
        (outcome,) = journal.commit([Add({"y": stored()})])
        assert "journal.mark: was replaced while it was open: send the write again" in str(outcome)
        assert journal.commit([Add({"y": stored()})])[0].sequence == 2
        assert journal_mark.read(tmp_path / "journal.db").sequence == 2

    def test_one_that_has_not_written_yet_does_not_begin_in_another_index_s_place(self, tmp_path):
        index = tmp_path / "index"
        index.mkdir()
        journal = writer(index)
        index.rename(tmp_path / "aside")
        index.mkdir()
        (outcome,) = journal.commit([Add({"y": stored()})])
        assert "replaced while it was open" in str(outcome)
        assert list(index.iterdir()) == []

    def test_one_whose_index_was_away_for_a_moment_goes_on(self, tmp_path):
        index = tmp_path / "index"
        index.mkdir()
        journal = writer(index)
        sequences = []
        for n in range(2):  # before its first write, and after it
            index.rename(tmp_path / "away")
            (outcome,) = journal.commit([Add({f"{n}": stored()})])
            assert "was moved, removed or replaced" in str(outcome)
            (tmp_path / "away").rename(index)
            sequences += [each.sequence for each in journal.commit([Add({f"{n}": stored()})])]
        assert sequences == [1, 2]

    def test_a_reader_says_that_the_file_was_replaced_where_it_does_not_fit_the_mark(self, tmp_path):
        index = tmp_path / "index"
        index.mkdir()
        written(index, Add({"x": stored()}))
        with Journal.open(index) as reader:
            index.rename(tmp_path / "aside")
            shutil.copytree(tmp_path / "aside", index)
            written(index, Add({"y": stored()}))
            with pytest.raises(ArtifactError, match="replaced while it was open"):
                reader.sequence()

    def test_of_a_journal_that_is_being_written_no_repair_is_advised(self, tmp_path, monkeypatch):
        written(tmp_path, Add({"x": stored()}))
        journal_mark.advance(tmp_path / "journal.db", Mark(2, 0))
        monkeypatch.setattr(journal_loss, "_PATIENCE_S", 0)
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(
                ArtifactError, match=r"database is locked: another process is writing to it: try again$"
            ):
                journal_loss.accept(tmp_path)

    def test_one_that_cannot_be_opened_leaves_nothing_open(self, tmp_path, monkeypatch):
        written(tmp_path, Add({"x": stored()}))
        gc.collect()
        before = len(list(Path("/proc/self/fd").iterdir()))
        monkeypatch.setattr(journal_transactions, "file_id", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            JournalTransactions(tmp_path / "journal.db", MODEL, D, 0)
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    @pytest.mark.parametrize("folder", [False, True])
    def test_what_is_no_database_is_not_left_open_while_its_error_is_kept(self, tmp_path, folder):
        written(tmp_path, Add({"x": stored()}))
        if folder:
            (tmp_path / "journal.db").unlink()
            (tmp_path / "journal.db").mkdir()
        else:
            with (tmp_path / "journal.db").open("r+b") as file:
                file.write(b"?")
        kept = []
        for open_it in (Journal.open, lambda index: connect_to_mend(index / "journal.db")):
            with pytest.raises((ArtifactError, sqlite3.DatabaseError)) as refused:
                open_it(tmp_path)
            kept.append(refused)  # with the frames that it came through
        opened = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.exists()]
        assert not [path for path in opened if path.is_relative_to(tmp_path)]

    def test_tells_a_log_of_another_index_which_holds_no_less(self, tmp_path):
        index, other = tmp_path / "index", tmp_path / "other"
        for directory, number in ((index, 3), (other, 5)):
            directory.mkdir()
            journal = writer(directory)
            for n in range(number):
                journal.commit([Add({f"{directory.name} {n}": stored()})])
            shutil.copytree(directory, tmp_path / f"{directory.name} left")
        left = tmp_path / "index left"
        shutil.copy(tmp_path / "other left" / "journal.db-wal", left)
        with pytest.raises(
            ArtifactError, match=r"journal\.db: holds another entry 3 .* of another index.*`vmmr-search repair"
        ):
            Journal.open(left)
        (outcome,) = written(left, Add({"x": stored()}))
        assert "holds another entry 3" in str(outcome)

    def test_one_of_an_earlier_release_tells_no_entry_until_the_next_write(self, tmp_path):
        written(tmp_path, Add({"x": stored()}), Add({"y": stored()}))
        mark, path = tmp_path / "journal.mark", tmp_path / "journal.db"
        mark.write_bytes(mark.read_bytes()[:8192])
        assert (journal_mark.read(path), journal_mark.read(path).checksum) == (Mark(2, 0), None)
        assert replayed(tmp_path).keys() == {"x", "y"}
        written(tmp_path, Add({"z": stored()}))
        with closing(sqlite3.connect(path)) as connection:
            ((checksum,),) = connection.execute("SELECT checksum FROM entries WHERE sequence = 3")
        assert (journal_mark.read(path), journal_mark.read(path).checksum) == (Mark(3, 0), checksum)

    def test_a_write_whose_mark_does_not_get_on_the_disk_may_be_there(self, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError(5, "Input/output error")

        written(tmp_path, Add({"x": stored()}))
        monkeypatch.setattr(journal_mark.MarkFile, "advance", fail)
        (outcome,) = written(tmp_path, Add({"y": stored()}))
        assert outcome.reason is Reason.JOURNAL_UNWRITABLE
        assert "may be there after a crash; send it again" in str(outcome)

    def test_the_retry_of_a_write_whose_mark_did_not_get_on_the_disk_puts_it_there(self, tmp_path, monkeypatch):
        journal, flushed = writer(tmp_path), []
        journal.commit([Add({"x": stored()})])

        def fail(_):
            raise OSError(5, "Input/output error")

        def flush(descriptor):
            flushed.append(os.pread(descriptor, 8192, 0))

        monkeypatch.setattr(journal_mark.os, "fdatasync", fail)
        (outcome,) = journal.commit([Add({"y": stored()})])
        assert "send it again" in str(outcome)
        lost = (tmp_path / "journal.mark").read_bytes()
        assert journal_mark.read(tmp_path / "journal.db") == Mark(2, 0)
        monkeypatch.setattr(journal_mark.os, "fdatasync", flush)
        (outcome,) = journal.commit([Add({"y": stored()})])
        assert (outcome.sequence, outcome.unchanged) == (2, 1)
        (content,) = flushed
        # What a flush has failed to write may count as written: only what was written again since is on the disk.
        assert [slot for slot in (0, 1) if content[slot * 4096 :][:4096] != lost[slot * 4096 :][:4096]]
        assert journal_mark.read(tmp_path / "journal.db") == Mark(2, 0)
        journal.close()

    def test_the_retry_of_a_write_that_nobody_was_told_of_flushes_the_log(self, tmp_path, monkeypatch):
        log = tmp_path / "journal.db-wal"
        journal = writer(tmp_path)
        journal.commit([Add({"x": stored()})])
        with monkeypatch.context() as failing:
            failing.setattr(journal_mark.MarkFile, "advance", lambda *_: (_ for _ in ()).throw(OSError(5, "broken")))
            journal.commit([Add({"y": stored()})])
        with Journal.open(tmp_path):
            before = log.stat().st_size
            (outcome,) = journal.commit([Add({"y": stored()})])
            assert (outcome.sequence, outcome.unchanged) == (2, 1)
            assert log.stat().st_size > before, "SQLite flushes the log only when it adds to it"
            after = log.stat().st_size
            journal.commit([Add({"y": stored()})])
            assert log.stat().st_size == after
        journal.close()

    def test_one_of_a_later_format_is_not_called_damaged(self, tmp_path, monkeypatch):
        with monkeypatch.context() as later:
            later.setattr(journal_mark, "_FORMAT", 7)
            written(tmp_path, Add({"x": stored()}))
        with pytest.raises(ArtifactError, match=r"journal\.mark: has format 7; this vmmr-search reads 1: use the one"):
            Journal.open(tmp_path)

    def test_a_block_that_is_torn_leaves_the_other_slot(self, tmp_path):
        """Disks and file systems write 4 KiB at once."""
        written(tmp_path, Add({"x": stored()}), Add({"y": stored()}))
        content = (tmp_path / "journal.mark").read_bytes()
        for at in (0, 4096):
            (tmp_path / "journal.mark").write_bytes(content[:at] + bytes(4096) + content[at + 4096 :])
            assert journal_mark.read(tmp_path / "journal.db") in (Mark(1, 0), Mark(2, 0))


class TestFormat1:
    @pytest.fixture
    def old(self, tmp_path):
        """As it was made before there were marks."""
        make_format_1(tmp_path, {name: stored(number=number) for number, name in enumerate("xyz", 1)})
        return tmp_path

    def test_is_read_and_becomes_one_of_this_with_the_first_write(self, old):
        items = {name: stored(number=number) for number, name in enumerate("xyz", 1)}
        with Journal.open(old) as reader:
            assert replayed(old) == items
            assert journal_mark.read(old / "journal.db") is None
            assert written(old, Delete(("y",)))[0].sequence == 4
            assert journal_mark.read(old / "journal.db") == Mark(4, 0)
            assert [entry.item_id for entry in reader.read(0, 10)] == ["x", "y", "z", "y"]
            reader.verify()
        del items["y"]
        assert replayed(old) == items

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE entries SET closes = 0 WHERE sequence = 3",
            "DELETE FROM entries WHERE sequence = 3",
            "DELETE FROM meta",
        ],
    )
    def test_is_read_no_further_and_not_written_to_if_it_is_damaged(self, old, change):
        with closing(sqlite3.connect(old / "journal.db")) as other, other:
            other.execute(change)
        with pytest.raises(ArtifactError, match="vmmr-search repair"), Journal.open(old) as journal:
            journal.read(0, 10)
        (outcome,) = written(old, Add({"new": stored()}))
        assert isinstance(outcome, ArtifactError)


def _in_index(content):
    """Where an index has the id `y`: a header of three bytes, the id, and the number 2."""
    return content.index(b"\x03\x0f\x01y\x02") + 3


def _raise(error):
    raise error


class TestCrashes:
    @pytest.mark.parametrize("seed", range(4))
    def test_what_was_acknowledged_is_there_after_a_kill_and_no_write_is_there_in_parts(self, tmp_path, seed):
        with start(tmp_path, "a") as program:
            lines = [program.stdout.readline()]
            killer = threading.Timer(random.Random(seed).uniform(0, 0.3), program.kill)
            killer.start()
            lines += program.stdout.readlines()
        numbers = [int(line.split()[0]) for line in lines if line.endswith("\n")]
        found = replayed(tmp_path)
        assert {f"a {number} {part}" for number in numbers for part in range(3)} <= found.keys()
        parts = {key.rsplit(" ", 1)[0]: [] for key in found}
        for key in found:
            parts[key.rsplit(" ", 1)[0]].append(key)
        assert {len(each) for each in parts.values()} == {3}
        assert len(parts) <= numbers[-1] + 2
        assert written(tmp_path, Add({"after": stored()}))[0].added == 1

    def test_a_torn_write_ahead_log_loses_what_was_torn_alone_and_only_if_nobody_was_told_of_it(self, tmp_path):
        live, torn = tmp_path / "live", tmp_path / "torn"
        live.mkdir()
        journal = writer(live)
        for number in range(20):
            journal.commit([Add({f"{number} {part}": stored(number=number) for part in range(3)})])
        log = (live / "journal.db-wal").read_bytes()
        for kept in sorted(random.Random(0).sample(range(len(log)), 25)):
            torn.mkdir()
            shutil.copy(live / "journal.db", torn)
            (torn / "journal.db-wal").write_bytes(log[:kept])
            journal_mark.create(torn / "journal.db", Mark(0, 0))
            found = replayed(torn)
            count, rest = divmod(len(found), 3)
            assert rest == 0
            assert found.keys() == {f"{number} {part}" for number in range(count) for part in range(3)}
            shutil.copy(live / "journal.mark", torn)
            with pytest.raises(ArtifactError) as refused:
                Journal.open(torn)
            assert refused.value.path == torn / "journal.db"
            if count:
                assert f"ends with entry {3 * count}, and entries up to 60 were acknowledged" in str(refused.value)
            shutil.rmtree(torn)

    @pytest.mark.parametrize("index", range(3))
    def test_several_processes_make_the_journal_and_write_at_once(self, tmp_path, index):
        programs = [start(tmp_path, name) for name in ("a", "b")]
        last = [program.stdout.readline() for program in programs for _ in range(50)]
        for program in programs:
            program.kill()
            program.communicate()
        sequences = [int(line.split()[1]) for line in last]
        assert len(set(sequences)) == len(sequences)
        assert {f"{name} {number} 0" for name in "ab" for number in range(50)} <= replayed(tmp_path).keys()


def test_of_a_label_those_alone_are_deleted_that_are_named_and_have_it_still(tmp_path):
    base = DictBase({name: stored("old") for name in ("moved", "there", "unnamed")})
    outcomes = written(
        tmp_path,
        Add({"moved": stored("new"), "other": stored("new")}),
        Delete(label="old", only=("moved", "there", "other", "absent", "there")),
        Delete(batch_id="may", only=("moved", "unnamed")),
        base=base,
    )
    assert [done.deleted for done in outcomes] == [0, 1, 0]
    assert replayed(tmp_path, base).keys() == {"moved", "unnamed", "other"}
