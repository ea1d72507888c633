"""`make bench`: what it makes of the figures that the benches leave."""

import json
import subprocess
import sys

import pytest

PEERS = {
    "ratios": {
        "mosec": {"throughput_at_equal_p99": 1.25, "p50_of_one_caller": 0.9, "cpu_of_a_photo": 1.1},
        "ray": {"throughput_at_equal_p99": None, "p50_of_one_caller": 2.0, "cpu_of_a_photo": 1.1},
    },
    "absent": {},
}
CHAIN = {
    "figures": {
        "identify: all else, ms": [2.0, 2.5, 9.0],
        "identify, async: all else, ms": [4.0],
        "identify_many / the slower service alone": [0.95],
        "identify_many, async / the slower service alone": [0.8],
    }
}


@pytest.fixture
def table(root, tmp_path):
    """`table(**figures)`: the table of those figures' benches, and those of `missing`, and the error."""

    def run(*missing, **figures):
        for name, content in figures.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        flags = ["--no-run", "--results", tmp_path, "--only", *figures, *missing]
        command = [sys.executable, "-m", "bench.all", *flags]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        rows = [line.strip("|").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
        cells = [[cell.strip() for cell in row] for row in rows[1:]]
        return {row[1]: (*row[2:5], row[5].strip(" |")) for row in cells}, done.stderr.strip()

    return run


def test_each_ratio_is_the_median_beside_what_is_wanted(table):
    rows, error = table(chain=CHAIN)
    assert error == ""
    assert rows["identify, p50 less the network's, ms"] == ("2.50", "2.00 to 9.00", "<= 3", "met")
    assert rows["identify, async, p50 less the network's, ms"][3] == "**missed**"
    assert rows["identify_many, async / the slower service alone"] == ("0.80", "0.80 to 0.80", ">= 0.9", "**missed**")


def test_a_peer_that_is_never_matched_counts_as_nothing(table):
    rows, _ = table(peers=PEERS)
    assert rows["vmmr / mosec, photos/s at equal p99"] == ("1.25", "", ">= 1", "met")
    assert rows["mosec / vmmr, p50 of one caller"][3] == "**missed**"
    assert rows["mosec / vmmr, CPU of a photo"] == ("1.10", "", "", "")
    assert rows["vmmr / ray, photos/s at equal p99"] == ("0.00", "", ">= 1", "**missed**")


def test_a_peer_that_was_not_measured_is_an_error_by_its_name(table):
    rows, error = table(peers=PEERS | {"absent": {"bentoml": "does not install: no network\nat all"}})
    assert error == "peers, bentoml: does not install: no network"
    assert len(rows) == 6


def test_an_overload_that_is_never_refused_or_recovered_from_is_missed(table):
    figures = {"goodput_of_peak": 0.95, "refused_p99_ms": 12.0, "recovery_s": 0.4, "memory_growth": 0.01}
    rows, _ = table(overload=figures)
    assert [row[3] for row in rows.values()] == ["met", "met", "met", ""]
    rows, _ = table(overload=figures | {"refused_p99_ms": None, "recovery_s": None})
    assert [row[3] for row in rows.values()] == ["met", "**missed**", "**missed**", ""]


def test_a_bench_without_figures_is_an_error_by_its_name_and_the_others_are_told(table, tmp_path):
    rows, error = table("workers", peers=PEERS)
    assert error == "workers: there are no figures"
    assert len(rows) == 6
    assert json.loads((tmp_path / "all.json").read_text())["machine"]["cores"] >= 1


def test_figures_that_are_kept_can_be_read(table, root):
    names = [name for name in ("workers", "serving") if (root / f"bench/results/{name}.json").exists()]
    rows, error = table(**{name: json.loads((root / f"bench/results/{name}.json").read_text()) for name in names})
    assert error == ""
    assert rows
