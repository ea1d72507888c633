"""The audit log on a real disk: whole lines, of several processes too, moved aside by size; a disk that fails stops no call."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from svckit.access import audit
from svckit.access.audit import AuditLog
from svckit.config import ConfigError

WRITER = """
import sys
import threading
from pathlib import Path
from svckit.access.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), 40_000, lambda: sys.exit("lost"))
for number in range(300):
    log.append({"writer": int(sys.argv[2]), "number": number, "text": "x" * 200})
log.close()
"""


@pytest.fixture
def lost():
    """What was counted as lost."""
    return []


@pytest.fixture
def open_log(tmp_path, lost):
    logs = []

    def start(max_bytes=10_000, path=tmp_path / "audit.jsonl"):
        logs.append(AuditLog(path, max_bytes, lambda: lost.append(1)))
        return logs[-1]

    yield start
    for log in logs:
        log.close()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def append(log, **fields):
    written = threading.Event()
    log.append(fields, written.set)
    assert written.wait(60)


def test_a_line_is_in_the_file_when_it_says_so(open_log, tmp_path, lost):
    log = open_log()
    append(log, caller="shop", text="a\nb \u2028 caf\u00e9")
    (line,) = lines(tmp_path / "audit.jsonl")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", line.pop("time"))
    assert line == {"caller": "shop", "text": "a\nb \u2028 caf\u00e9"}
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    assert not lost


def test_a_log_that_is_there_goes_on(open_log, tmp_path):
    for number in range(2):
        append(open_log(), number=number)
    assert [line["number"] for line in lines(tmp_path / "audit.jsonl")] == [0, 1]


def test_a_full_file_is_moved_aside_and_the_oldest_dropped(open_log, tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "KEPT", 2)
    log = open_log(max_bytes=100)
    for number in range(10):
        append(log, number=number, text="x" * 30)
    kept = sorted(tmp_path.iterdir())
    assert [path.name for path in kept] == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert [[line["number"] for line in lines(path)] for path in kept] == [[9], [8], [7]]


def test_several_processes_tear_no_line_of_one_file_and_lose_none(tmp_path):
    path = tmp_path / "audit.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(number)]) for number in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    files = sorted(tmp_path.iterdir())
    kept = sorted((line["writer"], line["number"]) for file in files for line in lines(file))
    assert kept == [(writer, number) for writer in range(3) for number in range(300)]
    assert len(files) > 5, "it was moved aside meanwhile"


def test_a_line_that_another_process_is_writing_is_no_torn_one(open_log, tmp_path, monkeypatch):
    """The system writes a line that crosses a page in two steps, between which others see its first part."""
    path, flock = tmp_path / "audit.jsonl", fcntl.flock
    with path.open("ab", buffering=0) as other:
        other.write(b'{"number"')

        def finish_first(file, how):
            if how == fcntl.LOCK_EX:
                other.write(b": 0}\n")
            flock(file, how)

        monkeypatch.setattr(audit.fcntl, "flock", finish_first)
        append(open_log(), number=1)
    assert [line["number"] for line in lines(path)] == [0, 1]


def test_whoever_has_the_file_alone_sees_no_line_being_written(open_log, tmp_path, monkeypatch):
    path, write, alone = tmp_path / "audit.jsonl", os.write, []

    def write_seen(file, line):
        if threading.current_thread().name == "audit":
            with path.open("ab") as other:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    alone.append(True)
                except BlockingIOError:
                    alone.append(False)
        return write(file, line)

    monkeypatch.setattr(audit.os, "write", write_seen)
    append(open_log(), number=1)
    assert alone == [False]


def test_a_line_is_written_where_files_have_no_locks(open_log, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(audit.fcntl, "flock", flock)
    append(open_log(), number=1)
    assert [line["number"] for line in lines(tmp_path / "audit.jsonl")] == [1]


def test_a_file_that_another_process_moved_aside_meanwhile_is_not_moved_again(open_log, tmp_path, monkeypatch):
    log, path = open_log(max_bytes=100), tmp_path / "audit.jsonl"
    append(log, number=0, text="x" * 30)

    def moved(_, how):
        if how == fcntl.LOCK_EX:
            path.rename(tmp_path / "audit.jsonl.1")
            path.touch()

    monkeypatch.setattr(audit.fcntl, "flock", moved)
    append(log, number=1, text="x" * 30)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["audit.jsonl", "audit.jsonl.1"]
    assert [line["number"] for line in lines(path)] == [1]


def test_a_file_that_another_program_moved_is_made_anew(open_log, tmp_path):
    log = open_log()
    append(log, number=0)
    (tmp_path / "audit.jsonl").rename(tmp_path / "moved")
    append(log, number=1)
    assert [line["number"] for line in lines(tmp_path / "audit.jsonl")] == [1]


def test_a_file_that_cannot_be_opened_is_told_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"--audit-log .*nowhere/audit: No such file or directory"):
        AuditLog(tmp_path / "nowhere" / "audit", 10_000, lambda: None)


@pytest.fixture
def locked_folder(monkeypatch):
    """Sets what nobody may do in the folder any more, of "move" and "make"."""
    denied, replace, open_ = set(), Path.replace, os.open

    def moves(path, target):
        if "move" in denied:
            raise PermissionError(errno.EACCES, "Permission denied")
        return replace(path, target)

    def opens(path, *how):
        if "make" in denied and not Path(path).exists():
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_(path, *how)

    monkeypatch.setattr(Path, "replace", moves)
    monkeypatch.setattr(audit.os, "open", opens)
    return denied


@pytest.mark.parametrize("denied", ["move", "make"])
def test_in_a_folder_that_cannot_be_written_any_more_no_line_is_lost_and_it_is_told(
    open_log, tmp_path, lost, locked_folder, caplog, *, denied
):
    caplog.set_level("INFO")
    log = open_log(max_bytes=100)
    append(log, number=0, text="x" * 30)
    locked_folder.add(denied)
    for number in range(1, 4):
        append(log, number=number, text="x" * 30)
        assert log.stuck
    locked_folder.clear()
    append(log, number=4, text="x" * 30)
    assert not log.stuck
    assert not lost
    files = [tmp_path / "audit.jsonl.1", tmp_path / "audit.jsonl"]
    assert [[line["number"] for line in lines(file)] for file in files] == [[0, 1, 2, 3], [4]]
    stuck = "the audit log cannot be moved aside or made anew, it goes on in the file it has"
    assert caplog.messages == [stuck, "the audit log is moved aside again"]
    assert caplog.records[0].error == "Permission denied"


def test_what_was_deleted_is_not_written_to_and_counts_as_lost(open_log, tmp_path, lost, locked_folder):
    log = open_log()
    append(log, number=0)
    locked_folder.add("make")
    (tmp_path / "audit.jsonl").unlink()
    append(log, number=1)
    assert len(lost) == 1
    locked_folder.clear()
    append(log, number=2)
    assert [line["number"] for line in lines(tmp_path / "audit.jsonl")] == [2]


def test_a_move_that_fails_half_way_and_is_tried_again_drops_no_file(open_log, tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "KEPT", 4)
    log = open_log(max_bytes=100)
    for number in range(5):
        append(log, number=number, text="x" * 30)
    replace = Path.replace

    def fails(path, target):
        if target.name == "audit.jsonl.2":
            raise PermissionError(errno.EACCES, "Permission denied")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        for number in range(5, 9):
            append(log, number=number, text="x" * 30)
    append(log, number=9, text="x" * 30)
    kept = [line["number"] for file in tmp_path.iterdir() for line in lines(file)]
    assert sorted(kept) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.fixture
def full_disk(monkeypatch):
    """Sets how many bytes the disk still takes; None: any number."""
    room, write = [None], os.write

    def writes(file, data):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        some = data if room[0] is None else data[: room[0]]
        room[0] = room[0] and room[0] - len(some)
        return write(file, some)

    monkeypatch.setattr(audit.os, "write", writes)
    return room


def test_a_full_disk_is_counted_for_each_line_and_told_once_and_again_when_it_is_over(
    open_log, tmp_path, lost, full_disk, caplog
):
    caplog.set_level("INFO")
    log = open_log()
    full_disk[0] = 0
    for number in range(3):
        append(log, number=number)
    full_disk[0] = None
    append(log, number=3)
    assert len(lost) == 3
    assert [line["number"] for line in lines(tmp_path / "audit.jsonl")] == [3]
    assert caplog.messages == ["lines of the audit log are lost, calls go on", "the audit log is written again"]
    assert caplog.records[0].error == "No space left on device"


def test_what_a_full_disk_left_of_a_line_spoils_no_other(open_log, tmp_path, lost, full_disk):
    log = open_log()
    append(log, number=0)
    full_disk[0] = 10
    append(log, number=1)
    full_disk[0] = None
    append(log, number=2)
    first, torn, second = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in (first, second)] == [0, 2]
    assert torn == '{"time": "'
    assert len(lost) == 1


def test_a_new_file_has_nothing_of_what_a_full_disk_left_in_the_one_before(open_log, tmp_path, full_disk):
    log, path = open_log(), tmp_path / "audit.jsonl"
    full_disk[0] = 10
    append(log, number=0)
    full_disk[0] = None
    path.rename(tmp_path / "moved")
    append(log, number=1)
    assert [line["number"] for line in lines(path)] == [1]


def test_what_a_full_disk_left_before_a_restart_spoils_no_line_either(open_log, tmp_path, full_disk):
    log = open_log()
    full_disk[0] = 10
    append(log, number=0)
    full_disk[0] = None
    append(open_log(), number=1)
    torn, line = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert torn == '{"time": "'
    assert json.loads(line)["number"] == 1


def test_a_disk_that_does_not_answer_keeps_only_so_much_in_memory(open_log, lost, monkeypatch):
    monkeypatch.setattr(audit, "_MOST_WAITING", 2)
    log = open_log()
    held, began = threading.Event(), threading.Event()
    log.append({"number": 0}, lambda: (began.set(), held.wait(60)))
    assert began.wait(60)
    told = [threading.Event() for _ in range(5)]
    for number, each in enumerate(told, start=1):
        log.append({"number": number}, each.set)
    assert len(lost) == 3
    assert [each.is_set() for each in told] == [False, False, True, True, True]
    held.set()
    assert all(each.wait(60) for each in told)
    append(log, number=6)
    assert [line["number"] for line in lines(log._path)] == [0, 1, 2, 6]
