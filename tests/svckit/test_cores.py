import os
import subprocess
import sys

import pytest

from svckit.cores import Share, cores, shares


@pytest.fixture
def two_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 2), ("800000 100000", 2), ("max 100000", 2), ("", 2)],
)
def test_a_containers_quota_counts_where_it_is_less_than_the_processors(two_processors, tmp_path, quota, expected):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert cores(tmp_path / "cpu.max") == expected


def test_without_a_quota_all_processors_count(two_processors, tmp_path):
    assert cores(tmp_path / "none") == 2


def divided(processes, cpu_max):
    return [(share.cores, share.processors) for share in shares(processes, cpu_max)]


def test_processes_have_processors_of_their_own_evenly(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 3, 8, 9}, raising=False)
    assert divided(2, tmp_path / "none") == [(2, {1, 2}), (3, {3, 8, 9})]
    assert divided(5, tmp_path / "none") == [(1, {1}), (1, {2}), (1, {3}), (1, {8}), (1, {9})]


def test_under_a_quota_or_where_they_are_too_few_only_threads_are_divided(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 3, 8, 9}, raising=False)
    (tmp_path / "cpu.max").write_text("300000 100000\n")
    assert divided(2, tmp_path / "cpu.max") == [(1, None), (2, None)]
    assert divided(4, tmp_path / "cpu.max") == [(1, None)] * 4
    assert divided(6, tmp_path / "none") == [(1, None)] * 6


def seen_by_a_process(share, env=None):
    """Returns what a process that is started with a share sees: its processors, OpenMP's threads, and `cores`."""
    code = (
        f"import os, svckit.cores as c; c.limit({share.cores});"
        "print(sorted(os.sched_getaffinity(0)), os.environ.get('OMP_NUM_THREADS'), c.cores())"
    )
    with share.applied():
        return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def test_what_is_started_has_its_share_from_the_first_moment_and_the_starter_its_own_after(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    one = min(before)
    assert seen_by_a_process(Share(1, frozenset({one}))) == f"[{one}] 1 1"
    assert seen_by_a_process(Share(1, None)) == f"{sorted(before)} 1 1"
    assert os.sched_getaffinity(0) == before
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_number_of_openmp_threads_that_the_user_set_stands(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert seen_by_a_process(Share(1, None)).split("] ")[1] == "7 1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
