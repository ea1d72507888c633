import contextlib
import os
import random
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from search_svc.building.compaction import compact
from search_svc.index import journal_file, journal_format, journal_mark, salvage
from search_svc.index import repair as repairing
from search_svc.index.backup import back_up, restore
from search_svc.index.journal import Journal
from search_svc.index.journal_loss import accept
from search_svc.index.journal_mark import Mark
from search_svc.index.journal_pruning import prune
from search_svc.index.repair import repair
from search_svc.index.retention import retire
from search_svc.index.version import IndexVersion
from search_svc.index.writes import Add, Delete
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from tests.search_svc.journals import D, DictBase, make_format_1, replayed, stored, writer, written

ROOT = Path(__file__).parents[3]
FRAME = 24 + 4096
"""Bytes of a frame of the log, which has a header of 32."""


@pytest.fixture(scope="module")
def built(build_index, tmp_path_factory):
    vectors = np.random.default_rng(0).standard_normal((20, D)).astype(np.float32)
    return build_index(vectors, directory=tmp_path_factory.mktemp("built")).path.parents[1]


@pytest.fixture(scope="module")
def journalled(built, tmp_path_factory):
    """With a journal of 400 entries, of which the first 50 are pruned."""
    index = shutil.copytree(built, tmp_path_factory.mktemp("journalled") / "index")
    written(index, *(Add({f"{n} {part}": stored(number=n) for part in range(4)}) for n in range(100)))
    prune(index, 50)
    return index


@pytest.fixture
def index(journalled, tmp_path):
    return shutil.copytree(journalled, tmp_path / "index")


def damage(index, at, size=1, name="journal.db"):
    file = index / name
    content = bytearray(file.read_bytes())
    place = content.index(at) if isinstance(at, bytes) else at
    content[place : place + size] = bytes(byte ^ 0xFF for byte in content[place : place + size])
    file.write_bytes(content)


def command(index):
    return subprocess.run(
        [sys.executable, "-m", "search_svc", "repair", index], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_one_bad_entry_is_left_out_and_all_others_are_saved_under_their_numbers(index):
    before = replayed(index, DictBase(journal_sequence=50))
    with Journal.open(index) as journal:
        numbers = {entry.item_id: entry.sequence for entry in journal.read(50, 10**6)}
    damage(index, b"42 2")
    done = command(index)
    assert done.returncode == 1
    assert "349 entries saved, 1 lost (171); " in done.stdout, done.stderr
    assert f"{index}: entry 171 was, as far as it can be read: " in done.stdout
    with Journal.open(index) as journal:
        entries = journal.read(50, 10**6)
        assert {entry.item_id: entry.sequence for entry in entries} == {k: n for k, n in numbers.items() if k != "42 2"}
        assert {entry.item_id: entry.item for entry in entries} == {k: i for k, i in before.items() if k != "42 2"}
        assert (journal.sequence(), journal.pruned) == (400, 50)
    assert written(index, Delete(("1 1",)), base=DictBase(journal_sequence=50))[0].sequence == 400
    assert written(index, Add({"new": stored()}), base=DictBase(journal_sequence=50))[0].sequence == 401


def test_a_page_that_is_gone_costs_what_was_on_it(index):
    page = (index / "journal.db").read_bytes().index(b"42 2") // 4096
    damage(index, 4096 * page, 4096)
    saved = repair(index)
    assert 0 < len(saved.lost) < 200
    assert saved.entries + len(saved.lost) == 350
    assert saved.damaged.exists()
    found = replayed(index, DictBase(journal_sequence=50))
    assert len(found) == saved.entries


def test_the_last_entry_is_read_even_if_the_end_of_its_write_is_lost(index):
    damage(index, b"99 3")
    assert repair(index).lost == [400]
    assert "99 2" in replayed(index, DictBase(journal_sequence=50))


def test_of_a_file_that_is_no_database_any_more_all_is_lost_and_no_number_is_given_again(index):
    (index / "journal.db").write_bytes(b"no database" * 1000)
    done = command(index)
    assert done.returncode == 1
    assert "0 entries saved, 350 lost (51, 52, " in done.stdout, done.stderr
    with Journal.open(index) as journal:
        assert (journal.sequence(), journal.pruned, journal.lost()) == (400, 50, 350)
        assert [entry.sequence for entry in journal.read(50, 10**6)] == [400]
    assert written(index, Add({"new": stored()}), base=DictBase(journal_sequence=50))[0].sequence == 401


def test_whatever_byte_of_the_header_is_damaged_no_entry_is_lost(index):
    before, whole = replayed(index, DictBase(journal_sequence=50)), (index / "journal.db").read_bytes()
    repaired = 0
    for at in range(100):
        (index / "journal.db").write_bytes(whole)
        damage(index, at)
        if saved := repair(index):
            assert (saved.entries, saved.lost, saved.unknown) == (350, [], []), at
            repaired += 1
        assert replayed(index, DictBase(journal_sequence=50)) == before, at
        for kept in index.glob("journal.db.damaged-*"):
            kept.unlink()
    assert repaired > 20
    assert written(index, Add({"new": stored()}), base=DictBase(journal_sequence=50))[0].sequence == 401


def test_what_comes_after_a_damaged_frame_of_the_log_is_saved(index):
    with reader(index):
        written(index, *(Add({f"new {n}": stored(number=n)}) for n in range(20)), base=DictBase(journal_sequence=50))
    before = {f"new {n}": stored(number=n) for n in range(20)}
    damage(index, 100, name="journal.db-wal")
    with pytest.raises(ArtifactError, match="ends with entry 400, and entries up to 420 were acknowledged"):
        Journal.open(index)
    saved = repair(index)
    assert (saved.entries, saved.lost, saved.unknown) == (370, [], [])
    found = replayed(index, DictBase(journal_sequence=50))
    assert {key: item for key, item in found.items() if key.startswith("new")} == before


@pytest.fixture
def prune_in_the_log(built, tmp_path):
    """As a kill leaves it right after all of nine entries were pruned, with the writes and the prune in the log."""
    live = shutil.copytree(built, tmp_path / "live")
    with contextlib.closing(writer(live)) as journal:
        for n in range(9):
            journal.commit([Add({f"{n}": stored(number=n)})])
        prune(live, 9)
        return shutil.copytree(live, tmp_path / "left")


@pytest.mark.parametrize("mend", [repair, accept])
def test_whichever_frame_of_a_prune_in_the_log_is_lost_the_journal_is_opened_again(prune_in_the_log, tmp_path, mend):
    refused = 0
    for number in range((prune_in_the_log / "journal.db-wal").stat().st_size // FRAME):
        index = shutil.copytree(prune_in_the_log, tmp_path / "index")
        damage(index, 32 + number * FRAME + 124, name="journal.db-wal")
        if refuses(index):
            refused += 1
            mended = mend(index)
            assert not mended or (mended.lost, mended.unknown) == ([], [])
        (added,) = written(index, Add({"new": stored()}), base=DictBase(journal_sequence=9))
        assert added.sequence == 10
        with Journal.open(index) as journal:
            assert [entry.item_id for entry in journal.read(9, 10)] == ["new"]
        shutil.rmtree(index)
    assert refused > 10


@pytest.mark.parametrize("marked", [True, False])
def test_a_bad_entry_of_a_journal_of_format_1_costs_that_entry_with_a_mark_and_without(built, tmp_path, marked):
    """With a mark it is what a restored backup is, or what an upgrade leaves that did not end."""
    index = shutil.copytree(built, tmp_path / "index")
    make_format_1(index, {f"item {n}": stored(number=n) for n in range(9)})
    if marked:
        journal_file.mark_copy(index / "journal.db")
    damage(index, b"item 3")
    saved = repair(index)
    assert (saved.entries, saved.lost, saved.unknown) == (8, [4], [])
    assert replayed(index) == {f"item {n}": stored(number=n) for n in range(9) if n != 3}
    assert written(index, Add({"new": stored()}))[0].sequence == 10


@pytest.fixture
def format_1(built, tmp_path):
    """A journal of nine entries that has no mark yet, whose values that steer reading are in no checksum."""
    index = shutil.copytree(built, tmp_path / "format 1")
    make_format_1(index, {f"item {n}": stored(number=n) for n in range(9)})
    return index


def changed(index, sql):
    with contextlib.closing(sqlite3.connect(index / "journal.db")) as journal, journal:
        journal.execute(sql)


@pytest.mark.parametrize("marked", [True, False])
def test_a_damaged_model_of_a_journal_of_format_1_is_that_of_the_version_which_it_nearly_is(format_1, marked):
    if marked:
        journal_file.mark_copy(format_1 / "journal.db")
    changed(format_1, "UPDATE meta SET value = 'z' || substr(value, 2) WHERE name = 'model'")
    saved = repair(format_1)
    assert (saved.entries, saved.lost, saved.unknown) == (9, [], [])
    with Journal.open(format_1) as journal:
        assert journal.model == IndexVersion.open(format_1).manifest.model
    assert repair(format_1) is None


@pytest.mark.parametrize("model", ["'99'", "99", "'z' || substr(value, 2, 62) || 'zz'", "substr(value, 1, 63)"])
def test_a_journal_of_format_1_of_no_version_s_model_is_not_told_to_be_well(format_1, model):
    changed(format_1, f"UPDATE meta SET value = {model} WHERE name = 'model'")
    before = (format_1 / "journal.db").read_bytes()
    with pytest.raises(ArtifactError, match=r"journal\.db: is of another model \(.*rollback.*backup"):
        repair(format_1)
    assert (format_1 / "journal.db").read_bytes() == before


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("sql", "entries", "lost", "unknown"),
    [
        ("UPDATE sqlite_sequence SET seq = seq + (1 << 40)", 9, [], ["any after 9 are lost"]),
        ("UPDATE sqlite_sequence SET seq = 11", 9, [10, 11], []),
        ("UPDATE entries SET sequence = sequence + (1 << 40) WHERE sequence = 9", 8, [9], []),
        ("UPDATE meta SET value = 1 << 40 WHERE name = 'pruned'", 9, [], []),
    ],
)
def test_a_number_of_a_journal_of_format_1_that_cannot_be_is_not_counted_up_to(format_1, sql, entries, lost, unknown):
    changed(format_1, sql)
    saved = repair(format_1)
    assert (saved.entries, saved.lost) == (entries, lost)
    assert len(saved.unknown) == len(unknown)
    assert all(text in told for text, told in zip(unknown, saved.unknown, strict=True))
    assert replayed(format_1).keys() == {f"item {n}" for n in range(entries)}
    assert repair(format_1) is None


def test_of_a_lost_entry_it_is_told_what_is_left_of_it(index):
    changed(index, "UPDATE entries SET uri = 'flipped' WHERE item_id = '42 2'")
    written(index, Delete(("1 1",)), base=DictBase(journal_sequence=50))
    changed(index, "UPDATE entries SET checksum = 7 WHERE sequence = 172")
    assert repair(index).remains == {
        171: "item '42 2', label 'honda_pilot_2011'",
        172: "item '42 3', label 'honda_pilot_2011'",
    }


def test_a_mark_of_a_later_format_is_left_alone(index):
    damage(index, b"42 2")
    fields = struct.pack("<8sIQQ", b"vmmrmark", 2, 400, 50)
    mark = 2 * (fields + struct.pack("<I", zlib.crc32(fields))).ljust(4096, b"\0")
    (index / "journal.mark").write_bytes(mark)
    before = (index / "journal.db").read_bytes()
    done = command(index)
    assert done.returncode == 1
    assert f"{index}/journal.mark: has format 2; this vmmr-search reads 1: use the one that wrote it" in done.stderr
    assert (index / "journal.mark").read_bytes() == mark
    assert (index / "journal.db").read_bytes() == before


def test_a_journal_of_a_later_format_is_left_alone(index):
    """Its entries' checksums are others; here each is changed."""
    changed(index, "UPDATE entries SET checksum = checksum + 1")
    changed(index, "PRAGMA user_version = 3")
    before = (index / "journal.db").read_bytes()
    with pytest.raises(ArtifactError, match=r"journal\.db: has format 3; .*: use the one that wrote it"):
        repair(index)
    assert (index / "journal.db").read_bytes() == before
    assert not list(index.glob("*.damaged-*"))


def test_two_repairs_within_a_second_keep_both_damaged_journals(index, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "20261129T000000")
    kept = []
    for name in (b"42 2", b"43 2"):
        damage(index, name)
        kept.append(repair(index).damaged)
    assert [each.name for each in kept] == [f"journal.db.damaged-20261129T000000{more}" for more in ("", "-2")]
    assert all(each.exists() for each in kept)


@pytest.fixture
def number_written_twice(built, tmp_path):
    """An entry, in the log before what is left of a larger write, which was killed before its commit, of the same number."""
    live, killed = shutil.copytree(built, tmp_path / "live"), tmp_path / "killed"
    rng = random.Random(0)
    names = [f"{rng.getrandbits(64):016x}" for _ in range(3021)]
    written(live, Add({name: stored() for name in names[:3000]}))
    with contextlib.closing(writer(live)) as journal:
        journal.commit([Add({names[3000]: stored()})])
        mark = (live / "journal.mark").read_bytes()
        journal.commit([Add({name: stored(uri="never acknowledged") for name in names[3001:3021]})])
        shutil.copytree(live, killed)
    (killed / "journal.mark").write_bytes(mark)
    log = killed / "journal.db-wal"
    log.write_bytes(log.read_bytes()[:-FRAME])
    with contextlib.closing(writer(killed)) as journal:
        assert journal.commit([Add({"true": stored(uri="acknowledged")})])[0].sequence == 3002
        return shutil.copytree(killed, tmp_path / "left")


def test_of_two_entries_of_a_number_the_one_that_was_acknowledged_is_saved(number_written_twice):
    damage(number_written_twice, 32 + 2 * FRAME + 124, name="journal.db-wal")
    assert refuses(number_written_twice)
    saved = repair(number_written_twice)
    assert (saved.entries, saved.lost, saved.unknown) == (3002, [], [])
    uris = {item.uri for item in replayed(number_written_twice).values()}
    assert ("acknowledged" in uris, "never acknowledged" in uris) == (True, False)


def test_of_two_entries_of_a_number_none_is_saved_if_the_mark_does_not_tell_which_was_acknowledged(
    number_written_twice,
):
    journal_mark.replace(number_written_twice / "journal.db", Mark(3002, 0))  # as by an earlier release
    damage(number_written_twice, 32 + 2 * FRAME + 124, name="journal.db-wal")
    done = command(number_written_twice)
    assert done.returncode == 1
    assert "3001 entries saved, 1 lost (3002); " in done.stdout
    assert "entry 3002: 2 are there, and which was acknowledged cannot be told" in done.stdout
    assert not {item.uri for item in replayed(number_written_twice).values()} & {"never acknowledged", "acknowledged"}


def refuses(index):
    try:
        Journal.open(index).close()
    except ArtifactError:
        return True
    return False


def test_what_would_be_refused_does_not_take_the_place_of_the_damaged_journal(index, monkeypatch):
    damage(index, b"42 2")
    before = (index / "journal.db").read_bytes()
    monkeypatch.setattr(repairing, "_rows", lambda rows, pruned, last: [rows[number] for number in (51, 53)])
    with pytest.raises(
        CommandError, match=r"nothing was changed.* ends with entry 53, and .* 400 were .*: restore a backup"
    ):
        repair(index)
    assert (index / "journal.db").read_bytes() == before
    assert not list(index.glob("*.damaged-*"))


@pytest.fixture
def lacks_its_last(built, tmp_path):
    """An index whose journal of three entries was repaired, after the last was lost."""
    index = shutil.copytree(built, tmp_path / "lacks its last")
    written(index, *(Add({name: stored(number=n)}) for n, name in enumerate(("one", "two", "three"))))
    damage(index, b"three")
    assert repair(index).lost == [3]
    return index


class TestAfterTheLastEntryWasLost:
    """Nobody has written since, so what stands in its place is the end."""

    def test_the_journal_is_read_to_its_end_and_listed(self, lacks_its_last):
        with Journal.open(lacks_its_last) as journal:
            assert (journal.sequence(), journal.lost()) == (3, 1)
            assert [entry.sequence for entry in journal.read(0, 10)] == [1, 2, 3]
            assert [entry.item_id for entry in journal.last_by_id("", 0, 10) if entry.item] == ["one", "two"]
            assert journal.of_label(stored().label, 0) == ["one", "two"]

    def test_the_gallery_is_compacted_to_that_end_and_pruned(self, lacks_its_last):
        version = compact(lacks_its_last)
        assert (version.manifest.journal_sequence, version.manifest.items) == (3, 22)
        assert retire(lacks_its_last, keep=1) == ["000001"]
        with Journal.open(lacks_its_last) as journal:
            assert (journal.sequence(), journal.lost()) == (3, 0)

    def test_it_is_backed_up_and_restored(self, lacks_its_last, tmp_path):
        back_up(lacks_its_last, str(tmp_path / "backup"))
        restore(str(tmp_path / "backup"), tmp_path / "restored")
        with Journal.open(tmp_path / "restored") as journal:
            assert (journal.sequence(), journal.lost()) == (3, 1)
        assert replayed(tmp_path / "restored").keys() == {"one", "two"}


def test_without_a_mark_nobody_says_that_none_are_lost(index):
    (index / "journal.mark").unlink()
    done = command(index)
    assert done.returncode == 1
    assert "350 entries saved, more may be lost" in done.stdout
    assert "any after 400 are lost" in done.stdout
    assert len(replayed(index, DictBase(journal_sequence=50))) == 350
    assert repair(index) is None


def test_of_a_journal_that_is_gone_all_is_lost(index):
    (index / "journal.db").unlink()
    saved = repair(index)
    assert (saved.entries, len(saved.lost)) == (0, 350)
    assert written(index, Add({"new": stored()}), base=DictBase(journal_sequence=50))[0].sequence == 401


def test_of_a_journal_that_is_gone_no_file_is_named_that_is_not_there(index):
    (index / "journal.db").unlink()
    done = command(index)
    assert done.returncode == 1
    assert "350 lost" in done.stdout
    assert "; its file was gone, and is made anew\n" in done.stdout
    assert "is what it was" not in done.stdout


def test_one_that_was_put_back_from_an_earlier_copy_than_its_version_is_told_and_repaired(built, tmp_path):
    index, kept = shutil.copytree(built, tmp_path / "index"), tmp_path / "kept"
    written(index, Add({"a": stored()}))
    shutil.copytree(index, kept)
    written(index, Add({"b": stored()}))
    compact(index)
    for name in ("journal.db", "journal.mark"):
        shutil.copyfile(kept / name, index / name)
    said = "ends with entry 1, and the index holds 2: .*an earlier copy: `vmmr-search repair"
    with Journal.open(index) as journal, pytest.raises(ArtifactError, match=said):
        journal.read(2, 10)
    (outcome,) = written(index, Add({"c": stored()}), base=DictBase(journal_sequence=2))
    assert re.search(said, str(outcome))
    assert repair(index).lost == [2]
    assert repair(index) is None
    assert written(index, Add({"c": stored()}), base=DictBase(journal_sequence=2))[0].sequence == 3


def test_a_journal_that_is_well_stays_as_it_is(index):
    before = (index / "journal.db").read_bytes()
    assert repair(index) is None
    assert (index / "journal.db").read_bytes() == before
    assert command(index).stdout == f"{index}: the journal is well, and stays as it is\n"


def test_while_a_server_has_the_journal_open_nothing_is_done(index):
    journal = writer(index, DictBase(journal_sequence=50))
    journal.commit([Add({"x": stored()})])
    with pytest.raises(CommandError, match="has the journal open: stop it first"):
        repair(index)
    journal.close()


def test_without_a_journal_it_says_so(built):
    with pytest.raises(CommandError, match="there is no journal"):
        repair(built)


def test_the_message_of_a_damaged_journal_names_the_command(index):
    damage(index, b"42 2")
    with Journal.open(index) as journal, pytest.raises(ArtifactError, match=f"`vmmr-search repair {index}`"):
        journal.read(50, 10**6)


class Killed(BaseException):
    """Where the process would be at its end."""


def kill_before_step(monkeypatch, number):
    """Of the steps that give files other names."""
    steps = iter(range(number))
    for owner, name in ((os, "link"), (Path, "rename"), (Path, "replace")):
        do = getattr(owner, name)

        def step(*arguments, do=do):
            if next(steps, None) is None:
                raise Killed
            return do(*arguments)

        monkeypatch.setattr(owner, name, step)


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM entries").fetchone()
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def reader(index):
    """A process that has the journal open, so that SQLite leaves the WAL as it is; killed at the end."""
    command = [sys.executable, "-c", READER, index / "journal.db"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield
        process.kill()


class TestKilled:
    @pytest.mark.parametrize("step", range(7))
    def test_between_any_two_steps_the_next_repair_saves_what_the_first_would_have(self, index, monkeypatch, step):
        with contextlib.closing(sqlite3.connect(index / "journal.db")) as other, other:
            other.execute("UPDATE entries SET label = 'flipped' WHERE item_id = '42 2'")
        with reader(index), monkeypatch.context() as patch:
            written(index, Add({"in the log": stored()}), base=DictBase(journal_sequence=50))
            patch.setattr(repairing, "_check_unused", lambda *_: None)  # the reader is another user's
            kill_before_step(patch, step)
            with contextlib.suppress(Killed):
                repair(index)
        saved = repair(index)
        if step == 6:
            assert saved is None, "more steps than were tried"
        else:
            assert (saved.entries, saved.lost) == (350, [171])
        found = replayed(index, DictBase(journal_sequence=50))
        assert "in the log" in found
        assert len(found) == 350
        assert len(list(index.glob("journal.db.damaged-*[0-9]"))) == 1
        assert repair(index) is None

    def test_nobody_reads_or_writes_the_damaged_journal_until_a_repair_has_ended(self, index, monkeypatch):
        damage(index, b"42 2")
        with monkeypatch.context() as patch:
            kill_before_step(patch, 2)
            with pytest.raises(Killed):
                repair(index)
        unended = f"its repair was begun and not ended: `vmmr-search repair {index}` ends it"
        with pytest.raises(ArtifactError, match=unended):
            Journal.open(index)
        (outcome,) = written(index, Add({"new": stored()}), base=DictBase(journal_sequence=50))
        assert unended in str(outcome)
        assert command(index).returncode == 1
        assert written(index, Add({"new": stored()}), base=DictBase(journal_sequence=50))[0].sequence == 401


@pytest.fixture(params=[0, 50])
def left(request, index, tmp_path):
    """The journal of 400 entries and one more, as a killed process leaves it, and in its place the log of another index."""
    writer_of_it = writer(index, base=DictBase(journal_sequence=50))
    writer_of_it.commit([Add({"last": stored()})])
    left = shutil.copytree(index, tmp_path / "left")
    other = tmp_path / "other"
    other.mkdir()
    written(other, *(Add({f"{n} {part}": stored(number=n + 7) for part in range(4)}) for n in range(100)))
    prune(other, request.param)
    writer_of_other = writer(other, base=DictBase(journal_sequence=50))
    writer_of_other.commit([Add({"other": stored()})])
    shutil.copy(other / "journal.db-wal", left)
    return left


def test_what_a_log_of_another_index_has_taken_the_place_of_is_told_and_nothing_changed(left):
    before = {path: path.read_bytes() for path in left.glob("journal.*")}
    with pytest.raises(
        CommandError, match=r"journal\.db-wal, is of another index, .*nothing was changed.*restore.*journal\.mark away"
    ):
        repair(left)
    assert {path: path.read_bytes() for path in left.glob("journal.*") if path in before} == before


def test_a_log_of_another_index_is_left_out_if_all_is_there_without_it(index, tmp_path):
    before = replayed(index, DictBase(journal_sequence=50))
    other = tmp_path / "other"
    other.mkdir()
    journal = writer(other)
    for n in range(401):
        journal.commit([Add({f"other {n}": stored(number=n)})])
    shutil.copy(other / "journal.db-wal", index)
    with pytest.raises(ArtifactError, match="repair"):
        Journal.open(index)
    saved = repair(index)
    assert (saved.lost, saved.unknown) == ([], [])
    assert replayed(index, DictBase(journal_sequence=50)) == before
    assert repair(index) is None


@pytest.mark.parametrize("content", [b"x" * 16384, b"", bytes(4096)])
def test_a_mark_that_cannot_be_read_is_made_anew(index, content):
    before = replayed(index, DictBase(journal_sequence=50))
    (index / "journal.mark").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"journal\.mark: is damaged.*`vmmr-search repair .* makes it anew"):
        Journal.open(index)
    saved = repair(index)
    assert (saved.entries, saved.lost) == (350, [])
    assert saved.unknown == ["up to which entry it was acknowledged cannot be read: any after 400 are lost"]
    assert repair(index) is None
    assert replayed(index, DictBase(journal_sequence=50)) == before


def test_a_folder_in_the_mark_s_place_is_named_before_anything_is_changed(index):
    (index / "journal.mark").unlink()
    (index / "journal.mark").mkdir()
    before = sorted(index.iterdir())
    with pytest.raises(ArtifactError, match=r"journal\.mark: is a folder, and must be a file: remove it"):
        repair(index)
    assert sorted(index.iterdir()) == before


class TestWhatWasNeverCommitted:
    """A write that was killed leaves rows in the log, whose numbers the next writes give anew."""

    @pytest.fixture
    def killed(self, index):
        """With 300 rows of a write that was killed before its commit was in the log, and two acknowledged entries over its beginning."""
        base = DictBase(journal_sequence=50)
        journal = writer(index, base=base)
        journal.commit([Add({"before": stored()})])
        journal.commit([Add({f"killed {n}": stored(number=n) for n in range(300)})])
        left = shutil.copytree(index, index.with_name("left"))
        log = (left / "journal.db-wal").read_bytes()
        ends = [at for at in range(32, len(log), FRAME) if int.from_bytes(log[at + 4 : at + 8], "big")]
        (left / "journal.db-wal").write_bytes(log[: ends[-1]])
        (left / "journal.db-shm").unlink()
        self.put_mark(left, index, Mark(401, 50))
        journal = writer(left, base=base)
        assert [journal.commit([Add({name: stored()})])[0].sequence for name in ("first", "second")] == [402, 403]
        return shutil.copytree(left, index.with_name("killed"))

    def put_mark(self, left, index, mark):
        journal_mark.replace(left / "journal.db", mark)
        with Journal.open(left) as journal:
            assert journal.sequence() == mark.sequence, "the killed write is not seen"

    @pytest.mark.parametrize("damaged", [["second"], ["first", "second"]])
    def test_is_saved_in_place_of_no_entry_that_was_acknowledged(self, killed, damaged):
        before = replayed(killed, DictBase(journal_sequence=50))
        log = (killed / "journal.db-wal").read_bytes()
        for name in damaged:
            log = log.replace(name.encode() + b"honda", name.encode() + b"Honda")
        (killed / "journal.db-wal").write_bytes(log)
        (killed / "journal.db-shm").unlink()
        saved = repair(killed)
        assert (saved.lost, saved.unknown) == ([{"first": 402, "second": 403}[name] for name in damaged], [])
        assert replayed(killed, DictBase(journal_sequence=50)) == {
            name: item for name, item in before.items() if name not in damaged
        }

    def test_a_commit_that_cannot_be_read_was_one_all_the_same_if_the_last_entry_is_in_it(self, killed):
        before = replayed(killed, DictBase(journal_sequence=50))
        log = bytearray((killed / "journal.db-wal").read_bytes())
        ends = [at for at in range(32, len(log), FRAME) if int.from_bytes(log[at + 4 : at + 8], "big")]
        log[ends[-1] + 4 : ends[-1] + 8] = bytes(4)
        (killed / "journal.db-wal").write_bytes(log)
        (killed / "journal.db-shm").unlink()
        with pytest.raises(ArtifactError, match="ends with entry 402, and entries up to 403 were acknowledged"):
            Journal.open(killed)
        assert repair(killed).lost == []
        assert replayed(killed, DictBase(journal_sequence=50)) == before


def test_a_log_of_another_index_that_sqlite_cannot_read_is_told_and_nothing_changed(index, tmp_path):
    """Its last row is not the entry that was acknowledged; so the others are not, either."""
    journal = writer(index, base=DictBase(journal_sequence=50))
    for n in range(6):
        journal.commit([Add({f"in the log {n}": stored(number=n)})])
    left = shutil.copytree(index, tmp_path / "left")
    (left / "journal.db-shm").unlink()
    (other := tmp_path / "other").mkdir()
    others = writer(other)
    others.commit([Add({f"another's {n}": stored(number=n)}) for n in range(406)])
    log = bytearray((other / "journal.db-wal").read_bytes())
    log[40] ^= 1  # the salt of the first frame
    (left / "journal.db-wal").write_bytes(log)
    before = {path: path.read_bytes() for path in left.glob("journal.*")}
    with pytest.raises(CommandError, match=r"is of another index, .*nothing was changed"):
        repair(left)
    assert {path: path.read_bytes() for path in left.glob("journal.*") if path in before} == before


@pytest.fixture(scope="module")
def in_the_log(built, tmp_path_factory):
    """Killed with all that was written in the log: three small writes, one of several pages, and one of 60 items."""
    index = shutil.copytree(built, tmp_path_factory.mktemp("logs") / "index")
    journal = writer(index)
    for n in range(3):
        journal.commit([Add({f"small {n}": stored(number=n)})])
    journal.commit([Add({"long": stored(uri=9000 * "u")})])
    journal.commit([Add({f"big {n}": stored(number=n, uri=100 * "u") for n in range(60)})])
    return shutil.copytree(index, index.with_name("killed"), ignore=shutil.ignore_patterns("*-shm"))


@pytest.mark.parametrize("how", ["lost", "cut", "its page changed", "its header changed", "its commit not told"])
def test_whatever_frame_of_a_log_is_gone_all_that_can_still_be_read_is_saved(in_the_log, tmp_path, how):
    whole = (in_the_log / "journal.db-wal").read_bytes()
    places = range(32, len(whole), FRAME)
    assert len(places) > 10
    for at in places:
        log = bytearray(whole)
        if how == "lost":
            log[at : at + FRAME] = bytes(FRAME)
        elif how == "cut":
            del log[at:]
        elif how == "its commit not told":
            log[at + 4 : at + 8] = bytes(4)
        else:
            log[at + (7 if "header" in how else 3000)] ^= 1
        index = shutil.copytree(in_the_log, tmp_path / f"{at}")
        (index / "journal.db-wal").write_bytes(log)
        there = salvage.rows(index / "journal.db", index / "journal.db-wal").keys()
        saved = repair(index)
        lost = saved.lost if saved else []
        assert set(lost) == set(range(1, 65)) - there, at
        assert len(replayed(index)) == 64 - len(lost)


@pytest.fixture
def continued(built, tmp_path):
    """An index whose log was replaced by that of another, which leaves alone the page with the last entry that was acknowledged."""
    for name in ("ours", "theirs"):
        shutil.copytree(built, tmp_path / name)
        written(tmp_path / name, *(Add({f"{name} {n:04}": stored(number=n, uri=400 * "u")}) for n in range(24)))
    journal = writer(tmp_path / "theirs")
    journal.commit([Add({f"theirs {n:04}": stored(uri=400 * "u")}) for n in range(24, 27)])
    shutil.copy(tmp_path / "theirs" / "journal.db-wal", tmp_path / "ours")
    return tmp_path / "ours"


def test_a_log_of_another_index_which_goes_on_from_ours_is_told_by_the_indexes(continued):
    with pytest.raises(ArtifactError, match=r"journal\.db: is damaged \(.*missing from index.*vmmr-search repair"):
        Journal.open(continued)
    saved = repair(continued)
    assert (saved.entries, saved.lost, saved.unknown) == (24, [], [])
    assert replayed(continued).keys() == {f"ours {n:04}" for n in range(24)}


def test_what_an_earlier_release_has_put_in_the_place_of_a_lost_last_entry_is_no_other_index_s(index):
    """It does not know that the mark tells which entry was the last."""
    with contextlib.closing(sqlite3.connect(index / "journal.db")) as connection, connection:
        connection.execute("DELETE FROM entries WHERE sequence = 400")
        connection.execute(journal_format.INSERT, journal_format.lost_row(400))
    with Journal.open(index) as journal:
        assert (journal.sequence(), journal.lost()) == (400, 1)
    assert repair(index) is None


def test_a_repaired_journal_that_is_lost_later_is_missed(index):
    damage(index, b"42 2")
    (index / "journal.lock").unlink()
    repair(index)
    for name in ("journal.db", "journal.mark"):
        (index / name).unlink()
    with pytest.raises(ArtifactError, match=r"is missing, and journal\.lock"):
        Journal.open(index)
