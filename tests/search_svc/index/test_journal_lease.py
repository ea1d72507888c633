"""Who has a journal open is known to who repairs it, whoever it is."""

import gc
import subprocess
import sys

import pytest

from search_svc.index import journal_file, repair
from search_svc.index.journal import Journal
from search_svc.index.journal_lease import exclusive_journal
from search_svc.index.writes import Add
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from tests.search_svc.journals import DictBase, stored, writer, written

OPEN = """
import sys, pathlib
from search_svc.index.journal import Journal
with Journal.open(pathlib.Path(sys.argv[1])): print(flush=True); input()
"""


@pytest.fixture
def index(tmp_path):
    written(tmp_path, Add({"a": stored()}))
    return tmp_path


def alone(index):
    with exclusive_journal(index) as found:
        return found


def test_a_journal_is_one_s_own_when_all_who_read_or_write_it_have_closed_it(index):
    assert alone(index)
    reading, writing = Journal.open(index), writer(index, DictBase())
    writing.commit([Add({"b": stored()})])
    reading.close()
    assert not alone(index)
    writing.close()
    assert alone(index)


def test_it_is_free_as_soon_as_it_is_closed(index):
    connection = journal_file.connect_to_read(index / "journal.db")
    assert not alone(index)
    connection.close()
    assert alone(index)


def test_one_that_nobody_closed_and_nobody_knows_any_more_is_free(index):
    reading = Journal.open(index)
    assert not alone(index)
    del reading
    gc.collect()
    assert alone(index)


def test_a_repair_is_refused_beside_a_process_that_it_cannot_see(index, monkeypatch):
    monkeypatch.setattr(repair, "_check_unused", lambda *_: None)  # it is of another container, or another user's
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, index], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        with pytest.raises(CommandError, match=r"a process that cannot be seen from here, .* has the journal open"):
            repair.repair(index)
        process.kill()
        process.wait()
    assert repair.repair(index) is None


def test_nobody_opens_a_journal_while_it_is_repaired(index, monkeypatch):
    def meanwhile(path):
        with pytest.raises(ArtifactError, match=r"journal\.db: is being repaired"):
            Journal.open(index)
        (outcome,) = written(index, Add({"b": stored()}))
        assert "is being repaired" in str(outcome)
        return is_well(path)

    is_well = repair._is_well
    monkeypatch.setattr(repair, "_is_well", meanwhile)
    assert repair.repair(index) is None
    assert written(index, Add({"b": stored()}))[0].sequence == 2
