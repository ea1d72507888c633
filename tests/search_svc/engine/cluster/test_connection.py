"""A front end's connection, against a keeper that answers as a test says."""

from types import SimpleNamespace

import pytest

from search_svc.__main__ import _connected
from svckit.cli import CommandError
from svckit.errors import Reason, ServiceError

connections = pytest.importorskip(
    "search_svc.engine.cluster.connection", reason="NO RAY HERE: connections to a cluster were not tested"
)

SOURCE = SimpleNamespace(key="000001-ab")


class FakeKeeper:
    """`tables` are its answers, one after the other, of which the last is repeated; an exception among them is raised."""

    def __init__(self, *tables, holds=None):
        self.tables = list(tables)
        self.holds = holds
        self.renewed = []
        self.renew = SimpleNamespace(remote=self._renew)

    def _renew(self, front, sources, replicas):
        self.renewed.append(set(sources))
        table = self.tables.pop(0) if len(self.tables) > 1 else self.tables[0]
        if isinstance(table, Exception):
            raise table
        return self.holds or replicas, dict.fromkeys(sources, table)


def table(*shards, settled=False, problem=""):
    """A table whose shards have replicas that are up or not."""
    placed = tuple(
        tuple(SimpleNamespace(up=up, name=str(number), host="a") for number, up in enumerate(shard)) for shard in shards
    )
    return SimpleNamespace(shards=placed, settled=settled, problem=problem, wanted=1, nodes=("a",))


UP = table([True], settled=True)


@pytest.fixture
def connect(monkeypatch):
    """`connect(keeper)`: a connection, of which this test alone renews."""
    opened = []

    def connect(keeper):
        monkeypatch.setattr(connections, "keeper", lambda: keeper)
        opened.append(connections.Connection("head:1", 1))
        return opened[-1]

    monkeypatch.setattr(connections, "connect", lambda address: None)
    monkeypatch.setattr(connections.ray, "get", lambda answer, timeout: answer)
    monkeypatch.setattr(connections.ray, "shutdown", lambda: None)
    monkeypatch.setattr(connections.ClusterWatch, "start", lambda watch: None)
    monkeypatch.setattr(connections.ClusterWatch, "look", lambda watch: None)
    monkeypatch.setattr(connections, "_RENEW_S", 3600.0)
    monkeypatch.setattr(connections, "_OPENING_S", 0.001)
    yield connect
    for each in opened:
        each._stopped.set()
        each._thread.join()  # what it still asks is not to reach the real Ray


@pytest.mark.parametrize("error", [connections.RayError("just ending"), RuntimeError("")])
def test_a_version_is_held_though_the_keeper_fails_at_first(connect, error):
    connection = connect(FakeKeeper(error, error, UP))
    connection.hold(SOURCE)
    assert connection.table(SOURCE.key) is UP


def test_a_keeper_that_never_answers_is_told_of(connect, monkeypatch):
    monkeypatch.setattr(connections, "_PATIENCE_S", 0.01)
    with pytest.raises(CommandError, match="does not answer, so version 000001-ab is not opened: away"):
        connect(FakeKeeper(connections.RayError("away"))).hold(SOURCE)


def test_a_replica_that_cannot_be_opened_is_done_without_if_its_shard_has_another(connect, monkeypatch):
    monkeypatch.setattr(connections, "_NO_PLACE_S", 0.0)
    monkeypatch.setattr(connections, "_PATIENCE_S", 0.01)
    damaged = table([True, False], [True], problem="shard-000.faiss: sha256 is")
    connection = connect(FakeKeeper(damaged))
    connection.hold(SOURCE)
    assert connection.table(SOURCE.key) is damaged


def test_a_shard_with_no_replica_that_can_be_opened_is_told_of(connect, monkeypatch):
    monkeypatch.setattr(connections, "_NO_PLACE_S", 0.0)
    with pytest.raises(CommandError, match=r"cannot open version 000001-ab: shard-000\.faiss"):
        connect(FakeKeeper(table([False], [True], problem="shard-000.faiss: sha256 is"))).hold(SOURCE)


def test_a_replica_that_took_long_to_fail_leaves_the_next_as_long_to_open(connect, monkeypatch):
    hung = table([False], problem="shard-000.faiss is not open after 100 s")
    keeper = FakeKeeper(table([False]), hung, hung, UP)
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: 100.0 * len(keeper.renewed)))
    connection = connect(keeper)
    connection.hold(SOURCE)
    assert connection.table(SOURCE.key) is UP


def test_the_thread_that_renews_outlives_whatever_is_raised(connect, monkeypatch, until):
    monkeypatch.setattr(connections, "_RENEW_S", 0.001)
    keeper = FakeKeeper(UP, OSError("whatever"), UP)
    connection = connect(keeper)
    connection.hold(SOURCE)
    until(lambda: len(keeper.renewed) > 5)


def test_a_connection_that_was_closed_needs_nothing_and_calls_nobody(connect):
    keeper = FakeKeeper(UP)
    connection = connect(keeper)
    connection.hold(SOURCE)
    connection.close()
    assert keeper.renewed[-1] == set()
    calls = len(keeper.renewed)
    connection.release(SOURCE.key)
    with pytest.raises(ServiceError) as caught:
        connection.hold(SOURCE)
    assert caught.value.reason == Reason.SHUTTING_DOWN
    assert len(keeper.renewed) == calls


def logged(caplog, message):
    return [each for each in caplog.records if each.message == message]


def test_another_number_of_replicas_than_this_server_was_given_is_told_once(connect, caplog):
    connection = connect(FakeKeeper(table([False]), UP, holds=connections.Scale(3)))
    connection.hold(SOURCE)
    (told,) = logged(caplog, "the cluster has another number of replicas")
    assert (told.replicas, told.of_this_server) == (3, 1)


def test_a_connection_tells_what_it_is_to(connect, caplog):
    caplog.set_level("INFO")
    connect(FakeKeeper(UP))
    (told,) = logged(caplog, "connected to a Ray cluster")
    assert (told.engine, told.cluster, told.replicas) == ("ray", "head:1", 1)


def test_a_keeper_that_is_silent_is_told_once_and_so_is_that_it_answers(connect, caplog):
    away = connections.RayError("away")
    connect(FakeKeeper(away, away, away, UP)).hold(SOURCE)
    assert len(logged(caplog, "the keeper of the cluster does not answer")) == 1
    assert len(logged(caplog, "the keeper of the cluster answers again")) == 1


def test_nobody_is_asked_for_a_keeper_while_the_cluster_is_lost(connect, monkeypatch):
    connection = connect(FakeKeeper(UP))
    connection.watch.problem = "the Ray cluster is lost"
    monkeypatch.setattr(connections, "keeper", lambda: pytest.fail("Ray would wait for its GCS"))
    assert connection._renew_if_possible() == "the Ray cluster is lost"


def lose(connection):
    """Have the next look at the cluster find it lost, as long as nobody is kept waiting meanwhile."""

    def look():
        assert not connection._lock.locked(), "whoever releases a version would wait"
        connection.watch.problem = "the Ray cluster is lost"

    connection.watch.look = look


def test_a_cluster_that_has_just_been_lost_is_seen_before_ray_is_asked_for_a_keeper(connect, monkeypatch):
    connection = connect(FakeKeeper(UP, connections.RayError("its node is gone")))
    connection.hold(SOURCE)
    assert connection._renew_if_possible() == "its node is gone"
    lose(connection)
    monkeypatch.setattr(connections, "keeper", lambda: pytest.fail("Ray would wait for its GCS"))
    assert connection._renew_if_possible() == "the Ray cluster is lost"


def test_a_cluster_that_has_just_been_lost_is_seen_before_ray_is_to_take_leave_of_it(connect, monkeypatch):
    connection = connect(FakeKeeper(UP))
    lose(connection)
    monkeypatch.setattr(connections.ray, "shutdown", lambda: pytest.fail("it would wait for the GCS"))
    monkeypatch.setattr(connections.atexit, "register", lambda *_: None)
    connection.close()


def test_a_server_that_fails_leaves_its_cluster_with_exit_code_1(monkeypatch):
    left = []
    monkeypatch.setattr(
        connections, "Connection", lambda *_: SimpleNamespace(close=lambda exit_code=0: left.append(exit_code))
    )
    settings = SimpleNamespace(ray_address="head:1", replicas=1)
    with _connected(settings):
        pass
    with pytest.raises(CommandError, match="the index is gone"), _connected(settings):
        raise CommandError("the index is gone")
    assert left == [0, 1]


def test_a_version_that_was_held_while_the_connection_was_closed_does_not_count_as_open(connect):
    connection = connect(FakeKeeper(UP))
    waited = connection._wait_for
    connection._wait_for = lambda key: (waited(key), connection.close())
    connection.hold(SOURCE)
    assert connection._opened == set()


def test_a_version_is_not_waited_for_once_the_cluster_is_given_up(connect):
    connection = connect(FakeKeeper(table([False])))
    connection.watch.problem = connection.watch.given_up = "the Ray cluster was lost"
    with pytest.raises(CommandError, match="the Ray cluster was lost"):
        connection.hold(SOURCE)


def test_what_a_version_that_is_open_lacks_is_counted_and_told_and_not_what_one_lacks_that_is_being_opened(connect):
    keeper = FakeKeeper(UP)
    connection = connect(keeper)
    connection._sources["opening"] = [SimpleNamespace(key="opening")]
    connection.hold(SOURCE)
    assert (connection.missing, connection.without_replica, connection.problem) == (0, 0, "")
    keeper.tables = [table([False])]
    connection._renew()
    assert (connection.missing, connection.without_replica) == (1, 1)
    assert connection.problem == "no replica is up of 1 shards"


@pytest.mark.parametrize("code", [0, 1])
def test_a_connection_to_a_lost_cluster_is_left_without_a_word_to_ray(connect, monkeypatch, code):
    connection = connect(FakeKeeper(UP))
    connection.hold(SOURCE)
    connection.watch.problem = "it is lost"
    monkeypatch.setattr(connections.ray, "shutdown", lambda: pytest.fail("it would wait for the GCS"))
    at_exit = []
    monkeypatch.setattr(connections.atexit, "register", lambda *call: at_exit.append(call))
    connection.release(SOURCE.key)
    connection.close(exit_code=code)
    assert at_exit == [(connections.os._exit, code)]
