"""Versions that are in use, told from those that are not, across processes."""

import errno
import os
import subprocess
import sys

import pytest

from search_svc.index.version_lease import VersionLease, exclusive_version, in_use
from svckit.artifact import ArtifactError

HOLD = "import sys, pathlib; from search_svc.index.version_lease import VersionLease; h = VersionLease(pathlib.Path(sys.argv[1])); print(flush=True); input()"


@pytest.fixture
def version(tmp_path):
    path = tmp_path / "versions" / "000001"
    path.mkdir(parents=True)
    (tmp_path / "CURRENT").write_text("000001\n")
    return path


def free(path):
    with exclusive_version(path) as alone:
        return alone


def test_a_version_is_free_until_it_is_held_and_again_when_all_have_let_go(version):
    assert free(version)
    first, second = VersionLease(version), VersionLease.current(version.parents[1])
    assert not free(version)
    first.release()
    assert not free(version)
    second.release()
    assert free(version)


def test_another_process_holds_it_until_it_is_killed(version):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, version], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert not free(version)
        process.kill()
        process.wait()
    assert free(version)


def test_whether_it_is_in_use_can_be_asked_while_others_hold_it_remove_it_or_ask(version):
    assert not in_use(version)
    with exclusive_version(version) as alone:
        assert alone
        assert not in_use(version)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, version], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert in_use(version)
        process.kill()
        process.wait()
    assert not in_use(version)


def test_one_that_cannot_be_reached_is_not_told_to_be_gone(version, monkeypatch):
    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("search_svc.index.version_lease.os.open", failing)
    with pytest.raises(ArtifactError, match="000001: Input/output error"):
        VersionLease(version)


def test_what_is_being_removed_or_was_cannot_be_held_any_more(version):
    with exclusive_version(version), pytest.raises(ArtifactError, match="is being removed"):
        VersionLease(version)
    with exclusive_version(version):
        version.rename(version.with_name(".000001.tmp"))
    with pytest.raises(ArtifactError, match="no such index version"):
        VersionLease(version)
    assert not free(version)


def test_a_version_that_is_removed_while_it_is_reached_for_is_not_held(version, monkeypatch):
    opened, reach = [], os.open

    def removed_meanwhile(path, *flags):
        descriptor = reach(path, *flags)
        if not opened:
            opened.append(version.rename(version.with_name("gone")))
        return descriptor

    monkeypatch.setattr("search_svc.index.version_lease.os.open", removed_meanwhile)
    with pytest.raises(ArtifactError, match="was removed"):
        VersionLease(version)


def test_who_reaches_for_the_current_version_gets_the_one_that_became_it_meanwhile(version, monkeypatch):
    root, names = version.parents[1], iter(["000000", "000001"])
    monkeypatch.setattr("search_svc.index.version_lease.current", lambda _: next(names, "000001"))
    held = VersionLease.current(root)
    assert held.path == version
    held.release()


def test_a_current_version_that_is_not_there_is_told(version):
    version.rmdir()
    with pytest.raises(ArtifactError, match="000001: there is no such index version"):
        VersionLease.current(version.parents[1])
