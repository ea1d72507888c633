"""Files that are read anew when they change, and not otherwise; a broken one leaves what was read before."""

import http.client
import os

import pytest

from svckit.access import sources
from svckit.config import ConfigError


def parse(content: bytes) -> int:
    return int(content)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "number").write_text("1")
    return tmp_path / "number"


@pytest.fixture
def source(path):
    opened = sources.file("number", path, parse, 0)
    opened.open()
    return opened


def test_a_file_is_read_anew_when_it_was_written(source, path, caplog):
    caplog.set_level("INFO")
    path.write_text("22")
    source.refresh()
    assert (source.value, source.problem, caplog.messages) == (22, "", ["read anew"])


def test_a_file_is_read_anew_when_another_took_its_place(source, path, tmp_path):
    """As Kubernetes does it: the size and the time of writing may be the same."""
    other = tmp_path / "other"
    other.write_text("2")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    source.refresh()
    assert source.value == 2


def test_a_file_that_stays_is_not_read_again(source, monkeypatch):
    monkeypatch.setattr(source, "_read", pytest.fail)
    source.refresh()
    assert source.value == 1


@pytest.mark.parametrize("breaks", ["content", "gone"])
def test_a_broken_file_leaves_the_value_and_is_told_once_until_it_is_well(source, path, breaks, caplog):
    caplog.set_level("INFO")
    path.unlink()
    if breaks == "content":
        path.write_text("two")
    for _ in range(3):
        source.refresh()
    assert source.value == 1
    assert source.problem.startswith(f"number {path}: ")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.write_text("1" if breaks == "gone" else "333")
    source.refresh()
    assert (source.value, source.problem) == (1 if breaks == "gone" else 333, "")
    assert caplog.messages[-1] == "read anew"


def test_whatever_a_reader_stumbles_over_the_watch_goes_on(source, path, monkeypatch):
    for error in (
        http.client.IncompleteRead(b""),
        RecursionError(),
        PermissionError(13, "Permission denied"),
        TypeError("odd"),
    ):

        def fails(error=error):
            raise error

        monkeypatch.setattr(source, "_read", fails)
        source.refresh(at_once=True)
        assert source.problem.startswith(f"number {path}: ")
        assert not source.problem.endswith(": "), "an error that says nothing is told by its name"
    assert source.value == 1


def test_what_was_never_read_is_not_said_to_hold(path, caplog):
    source = sources.file("number", path, parse, 0)
    path.write_text("two")
    source.refresh()
    assert caplog.messages == ["could not read it, and it lets nobody in until it can be read"]
    path.write_text("33")
    source.refresh()
    path.write_text("three")
    source.refresh()
    assert source.value == 33
    assert caplog.messages[1:] == ["could not read it anew, what was read before holds"]


def test_at_the_start_a_broken_file_ends_it(path):
    path.write_text("two")
    with pytest.raises(ConfigError, match=r"number .*/number: invalid literal"):
        sources.file("number", path, parse, 0).open()
