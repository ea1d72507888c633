import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from doctor import folders
from doctor.findings import State
from search_svc.building.compaction import compact
from search_svc.index.backup import back_up, restore
from search_svc.index.index_dir import make_current
from search_svc.index.journal import Journal
from search_svc.index.journal_loss import accept, accept_gone
from search_svc.index.journal_mark import Mark, create, read
from search_svc.index.repair import repair
from search_svc.index.retention import roll_back
from search_svc.index.writes import Add
from svckit.artifact import ArtifactError
from tests.search_svc.building.test_compaction import base_of, write
from tests.search_svc.journals import D, replayed, sequence, stored, writer, written

ROOT = Path(__file__).parents[3]
GONE = r"journal\.db: is missing, and version 000002 holds its entries up to 2: any that came after are lost: .*restore.*repair.*--accept-loss"


@pytest.fixture(scope="module")
def built(build_index, tmp_path_factory):
    vectors = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
    return build_index(vectors, directory=tmp_path_factory.mktemp("index")).path.parents[1]


@pytest.fixture(scope="module")
def compacted(built, tmp_path_factory):
    """Of two versions, the second of which holds the journal to entry 2; entry 3 was written since."""
    index = shutil.copytree(built, tmp_path_factory.mktemp("compacted") / "index")
    write(index, Add({"a": stored(), "b": stored()}))
    compact(index)
    write(index, Add({"c": stored()}))
    return index


@pytest.fixture
def robbed(compacted, tmp_path):
    """Without its journal, and without the mark."""
    return shutil.copytree(compacted, tmp_path / "index", ignore=shutil.ignore_patterns("journal.*"))


def command(*arguments):
    """Run a command; one that goes on, as a server that does not refuse, fails the test."""
    return subprocess.run(
        [sys.executable, "-m", "search_svc", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )


class TestAJournalThatIsGoneWithItsMark:
    def test_is_missed_by_whoever_reads_it_or_builds_of_it(self, robbed, tmp_path):
        for attempt in (
            lambda: Journal.open(robbed),
            lambda: compact(robbed),
            lambda: back_up(robbed, str(tmp_path / "backups")),
            lambda: roll_back(robbed),
        ):
            with pytest.raises(ArtifactError, match=GONE):
                attempt()
        assert not (robbed / "journal.db").exists()
        assert not (tmp_path / "backups").exists()

    def test_is_missed_by_a_write(self, robbed):
        [outcome] = written(robbed, Add({"d": stored()}), base=base_of(robbed))
        assert "any that came after are lost" in str(outcome)
        assert not list(robbed.glob("journal*"))

    def test_is_missed_by_doctor(self, robbed):
        found, version = folders.gallery(robbed)
        assert (found.state, version) == (State.FAIL, None)
        assert "any that came after are lost" in found.text

    @pytest.mark.parametrize("arguments", [("info",), ("serve", "--port", "0", "--index")])
    def test_is_missed_by_commands(self, robbed, arguments):
        done = command(*arguments, robbed)
        assert done.returncode == 1
        assert "any that came after are lost" in done.stderr

    def test_is_missed_if_a_mark_of_an_earlier_time_is_there(self, robbed):
        create(robbed / "journal.db", Mark(1, 1))
        with pytest.raises(ArtifactError, match=GONE):
            Journal.open(robbed)

    def test_is_missed_if_another_version_than_the_current_one_tells_of_it(self, robbed):
        make_current(robbed, "000001")
        with pytest.raises(ArtifactError, match=GONE):
            Journal.open(robbed)


class TestARepair:
    def test_makes_it_anew_and_says_what_it_cannot_tell(self, robbed):
        done = command("repair", robbed)
        assert done.returncode == 1
        assert "0 entries saved, more may be lost; its file was gone, and is made anew" in done.stdout
        assert "up to which entry it was acknowledged cannot be read: any after 2 are lost" in done.stdout
        assert repair(robbed) is None
        assert replayed(robbed, base_of(robbed)).keys() >= {"a", "b"}
        assert [outcome.sequence for outcome in write(robbed, Add({"d": stored()}))] == [3]

    def test_gives_no_number_again_that_another_version_than_the_current_one_holds(self, robbed):
        make_current(robbed, "000001")
        assert repair(robbed).lost == [1, 2]
        assert [outcome.sequence for outcome in write(robbed, Add({"d": stored()}))] == [3]
        assert roll_back(robbed, "000002") == "000002"
        assert replayed(robbed, base_of(robbed)).keys() >= {"a", "b", "d"}


class TestAnAcceptedLoss:
    def test_goes_on_after_what_versions_hold(self, robbed):
        assert (accept_gone(robbed), accept(robbed)) == (2, 0)
        assert (accept_gone(robbed), accept(robbed)) == (None, 0)
        with Journal.open(robbed) as journal:
            assert (journal.sequence(), journal.pruned) == (2, 2)
        assert compact(robbed) is None
        assert [outcome.sequence for outcome in write(robbed, Add({"d": stored()}))] == [3]

    def test_raises_a_mark_of_an_earlier_time(self, robbed):
        create(robbed / "journal.db", Mark(1, 1))
        assert accept_gone(robbed) == 2
        assert read(robbed / "journal.db") == Mark(2, 2)

    def test_is_refused_where_the_current_version_holds_less(self, robbed):
        make_current(robbed, "000001")
        with pytest.raises(ArtifactError, match="the current version holds less: `vmmr-search repair"):
            accept_gone(robbed)

    def test_is_none_if_nothing_was_lost(self, compacted, built):
        assert (accept_gone(compacted), accept_gone(built)) == (None, None)


class TestWhereNoneWasLost:
    def test_an_index_that_was_never_written_to_is_well(self, built):
        with Journal.open(built) as journal:
            assert (journal.sequence(), journal.pruned) == (0, 0)
        assert json.loads(command("info", built).stdout)["journal_sequence"] == 0
        assert folders.gallery(built)[0].state == State.OK

    def test_an_index_that_was_restored_with_all_in_its_version_is_well(self, robbed, tmp_path):
        accept_gone(robbed)
        back_up(robbed, str(tmp_path / "backups"))
        restore(str(tmp_path / "backups"), restored := tmp_path / "restored")
        assert not (restored / "journal.db").exists()
        assert folders.gallery(restored)[0].state == State.OK
        assert repair(restored) is None
        back_up(restored, str(tmp_path / "backups"))
        assert [outcome.sequence for outcome in write(restored, Add({"d": stored()}))] == [3]

    def test_an_index_that_was_restored_at_the_end_of_its_version_is_well(self, compacted, tmp_path):
        index = shutil.copytree(compacted, tmp_path / "index")
        back_up(index, str(tmp_path / "backups"))
        restore(str(tmp_path / "backups"), restored := tmp_path / "restored", 2)
        assert folders.gallery(restored)[0].state == State.OK
        assert [outcome.sequence for outcome in write(restored, Add({"d": stored()}))] == [3]


class TestThatNoVersionHoldsAnythingOf:
    """The lock alone tells of it."""

    @pytest.fixture
    def unheld(self, built, tmp_path):
        index = shutil.copytree(built, tmp_path / "index")
        write(index, Add({"a": stored()}))
        for name in ("journal.db", "journal.mark"):
            (index / name).unlink()
        return index

    def test_it_is_missed_by_who_reads_and_who_writes(self, unheld):
        gone = r"journal\.db: is missing, and journal\.lock beside it tells that it was written to.*restore.*repair.*--accept-loss"
        with pytest.raises(ArtifactError, match=gone):
            Journal.open(unheld)
        (outcome,) = written(unheld, Add({"b": stored()}), base=base_of(unheld))
        assert "is missing, and journal.lock" in str(outcome)

    def test_it_is_repaired_once_and_that_is_told(self, unheld):
        saved = repair(unheld)
        assert (saved.entries, saved.lost) == (0, [])
        assert saved.unknown == ["up to which entry it was acknowledged cannot be read: any after 0 are lost"]
        assert repair(unheld) is None
        assert write(unheld, Add({"b": stored()}))[0].sequence == 1

    def test_its_log_may_hold_all_of_it_and_a_repair_is_what_helps(self, built, tmp_path):
        index = shutil.copytree(built, tmp_path / "index")
        journal = writer(index)
        journal.commit([Add({"a": stored()})])
        killed = shutil.copytree(index, tmp_path / "killed")
        for name in ("journal.db", "journal.mark"):
            (killed / name).unlink()
        told = r"is missing, and journal\.lock beside it tells that it was written to: `vmmr-search repair .* saves what its log holds; a backup"
        with pytest.raises(ArtifactError, match=told):
            Journal.open(killed)
        assert accept_gone(killed) is None
        assert (repair(killed).entries, replayed(killed).keys()) == (1, {"a"})

    def test_what_sqlite_shares_between_processes_is_nothing_that_holds_it(self, unheld):
        """A killed process leaves it."""
        (unheld / "journal.db-shm").write_bytes(bytes(32768))
        assert accept_gone(unheld) == 0

    def test_one_that_was_restored_is_missed_before_anybody_writes_to_it(self, built, tmp_path):
        index = shutil.copytree(built, tmp_path / "index")
        write(index, Add({"a": stored()}))
        back_up(index, str(tmp_path / "backups"))
        restore(str(tmp_path / "backups"), restored := tmp_path / "restored")
        for name in ("journal.db", "journal.mark"):
            (restored / name).unlink()
        with pytest.raises(ArtifactError, match=r"is missing, and journal\.lock"):
            Journal.open(restored)

    def test_the_loss_is_accepted_once(self, unheld):
        assert (accept_gone(unheld), accept_gone(unheld)) == (0, None)
        assert write(unheld, Add({"b": stored()}))[0].sequence == 1

    def test_an_index_that_nobody_has_written_to_has_none(self, built):
        assert sequence(built) == 0
