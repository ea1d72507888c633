"""When a cluster counts as lost, back, and given up: look by look, under a clock of the test's own."""

import logging
import threading

import pytest

from search_svc.engine.cluster.watch import ClusterWatch


class Cluster:
    def __init__(self):
        self.now, self.reason, self.ends = 100.0, "", []


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def watch(cluster, monkeypatch):
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "80")
    watch = ClusterWatch("head:6379", lambda: cluster.reason, lambda: cluster.now)
    watch.when_given_up(cluster.ends.append)
    return watch


def look(watch, cluster, seconds, reason):
    cluster.now, cluster.reason = cluster.now + seconds, reason
    watch.look()


def messages(caplog):
    return [(record.message, record.levelname) for record in caplog.records]


def test_a_lost_cluster_is_told_once_and_so_is_that_it_is_back(watch, cluster, caplog):
    caplog.set_level(logging.INFO)
    look(watch, cluster, 1, "")
    assert (watch.problem, messages(caplog)) == ("", [])
    look(watch, cluster, 1, "Connection refused")
    look(watch, cluster, 59, "timed out")
    assert watch.problem == "the Ray cluster at head:6379 is lost: timed out"
    look(watch, cluster, 0.5, "")
    assert (watch.problem, watch.given_up, cluster.ends) == ("", "", [])
    assert messages(caplog) == [("the Ray cluster is lost", "ERROR"), ("the Ray cluster is back", "WARNING")]
    assert (caplog.records[0].ends_in_s, caplog.records[1].lost_s) == (60, 59.5)


def test_a_cluster_that_stays_away_is_given_up_once_before_ray_does(watch, cluster):
    look(watch, cluster, 1, "Connection refused")
    look(watch, cluster, 59.9, "Connection refused")
    assert (watch.given_up, cluster.ends) == ("", [])
    look(watch, cluster, 0.2, "Connection refused")
    look(watch, cluster, 9, "Connection refused")
    assert cluster.ends == [watch.given_up]
    assert watch.given_up.startswith("the Ray cluster at head:6379 was lost for 60 s (Connection refused)")


def given_up(watch, cluster):
    look(watch, cluster, 1, "Connection refused")
    look(watch, cluster, 61, "Connection refused")


def test_who_asks_after_a_cluster_was_given_up_is_told_at_once(watch, cluster):
    watch.when_given_up(lambda _: None)
    given_up(watch, cluster)
    watch.when_given_up(cluster.ends.append)
    assert cluster.ends == [watch.given_up]


def test_nobody_is_told_any_more_of_a_watch_that_was_stopped(watch, cluster):
    watch.stop()
    given_up(watch, cluster)
    assert cluster.ends == []


def test_the_name_of_a_cluster_is_resolved_when_the_watch_starts(monkeypatch):
    looked = threading.Event()
    monkeypatch.setattr("search_svc.engine.cluster.watch._LOOK_S", 3600.0)
    watch = ClusterWatch("head:6379", looked.set)
    watch.start()
    assert looked.wait(60)
    watch.stop()


def test_the_time_begins_anew_each_time_that_the_cluster_is_lost(watch, cluster):
    look(watch, cluster, 1, "Connection refused")
    look(watch, cluster, 50, "")
    look(watch, cluster, 1, "Connection refused")
    look(watch, cluster, 50, "Connection refused")
    assert watch.given_up == ""
