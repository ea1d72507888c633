"""bench/pair/peers.py: how servers are compared."""

import pytest

from bench.pair import peers


@pytest.fixture
def served():
    """`served("name", {callers: (photos/s, p50, p99)})`: a server that was measured once."""

    def make(name, figures, cpu_ms=9.0):
        runs = {callers: [peers.Run(*each, cpu_ms=cpu_ms, callers_cpu_ms=1.0)] for callers, each in figures.items()}
        return peers.Served(name, "some way", None, None, runs=runs)

    return make


def test_throughput_is_compared_where_the_peer_does_most_at_a_p99_no_higher(served):
    ours = served("vmmr", {1: (50, 20, 25), 4: (80, 50, 60), 16: (90, 180, 220)})
    theirs = served("other", {1: (40, 25, 30), 4: (60, 60, 100), 16: (55, 290, 400)}, cpu_ms=19.0)
    assert peers.ratios([ours, theirs]) == {
        "other": {"throughput_at_equal_p99": pytest.approx(80 / 60), "p50_of_one_caller": 25 / 20, "cpu_of_a_photo": 2}
    }


def test_a_peer_is_taken_in_its_best_way_and_vmmr_that_is_never_as_quick_has_no_ratio(served):
    ours = served("vmmr", {1: (50, 20, 25), 4: (80, 50, 60), 16: (90, 180, 220)})
    slow = served("other", {1: (10, 90, 99), 4: (10, 90, 99), 16: (10, 90, 99)})
    quick = served("other", {1: (70, 14, 20), 4: (70, 70, 99), 16: (60, 70, 99)})
    assert peers.ratios([ours, slow, quick]) == {
        "other": {"throughput_at_equal_p99": None, "p50_of_one_caller": 14 / 20, "cpu_of_a_photo": 1}
    }


def test_every_peer_is_pinned_and_has_its_server_beside_the_bench():
    for peer in peers.peers(2).values():
        assert all("==" in package for package in peer.packages)
        assert any(
            (peers.SERVERS / f"{part.partition(':')[0].removesuffix('.py')}.py").exists() for part in peer.command
        )
