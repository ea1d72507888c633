import os

import pytest

from svckit.cores import cores


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
