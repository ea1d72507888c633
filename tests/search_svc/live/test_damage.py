"""What is told of damage that was met in the journal, and until when. Each reading of the journal ends when the test says how."""

import logging
import queue
import time

import pytest

from search_svc.index.journal_errors import replaced
from search_svc.live import damage
from search_svc.live.damage import DamageWatch
from svckit.artifact import ArtifactError

TIMEOUT_S = 60


class Readings:
    """Of the whole journal: each ends with what is put into `ends`, an error or None."""

    def __init__(self):
        self.begun, self.ends = queue.SimpleQueue(), queue.SimpleQueue()

    def __call__(self):
        self.begun.put(1)
        if error := self.ends.get(timeout=TIMEOUT_S):
            raise error

    def end(self, error=None):
        """End one, once it has begun, and wait until the next begins."""
        self.begun.get(timeout=TIMEOUT_S)
        self.ends.put(error)

    def next_begins(self):
        self.begun.get(timeout=TIMEOUT_S)
        self.begun.put(1)


def bad(tmp_path, entry):
    return ArtifactError(tmp_path / "journal.db", f"is damaged (entry {entry} is not what was written)")


@pytest.fixture
def readings():
    return Readings()


@pytest.fixture
def watch(readings, monkeypatch):
    monkeypatch.setattr(damage, "_AGAIN_S", 0.0)
    watch = DamageWatch(readings)
    watch.start()
    yield watch
    watch.stop()
    readings.ends.put(None)
    watch._thread.join(TIMEOUT_S)


def test_what_was_met_is_told_at_once_and_until_all_has_been_read_and_is_well(watch, readings, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert watch.problem == ""
    watch.suspect(bad(tmp_path, 7))
    assert (
        watch.problem == f"the journal is damaged: {tmp_path}/journal.db: is damaged (entry 7 is not what was written)"
    )
    readings.end(bad(tmp_path, 7))
    readings.end(bad(tmp_path, 3))
    readings.next_begins()
    assert "entry 3" in watch.problem, "that is where a reading ends now"
    readings.end()
    end = time.monotonic() + TIMEOUT_S
    while watch.problem:
        assert time.monotonic() < end
        time.sleep(0.001)
    *told, last = caplog.records
    assert [line.reason for line in told] == [str(bad(tmp_path, 7)), str(bad(tmp_path, 3))]
    assert last.message == "the journal is well again"


def test_what_somebody_else_has_noticed_is_looked_for_and_told_if_it_is_there(watch, readings, tmp_path):
    watch.suspect()
    readings.end(bad(tmp_path, 7))
    readings.next_begins()
    assert "entry 7" in watch.problem


def test_what_is_met_while_all_is_read_is_not_forgotten_when_that_ends_well(watch, readings, tmp_path):
    watch.suspect()
    readings.next_begins()
    watch.suspect(bad(tmp_path, 7))
    readings.end()
    readings.next_begins()
    assert "entry 7" in watch.problem


def test_a_journal_that_was_replaced_stays_told_whatever_the_files_are_that_are_there_now(tmp_path):
    watch = DamageWatch(lambda: None)
    watch.suspect(bad(tmp_path, 7))
    watch._suspected.clear()
    watch.suspect(replaced(tmp_path / "journal.db"))
    assert not watch._suspected.is_set(), "nothing is read for it"
    watch._look()
    assert "replaced while it was open" in watch.problem
