"""What the keeper does with replicas and numbers, step by step, on a cluster that is a few lines of this file."""

import threading
from types import SimpleNamespace

import pytest

keepers = pytest.importorskip("search_svc.engine.cluster.keeper", reason="NO RAY HERE: the keeper was not tested")

from ray.exceptions import ActorUnavailableError  # noqa: E402

from search_svc.engine.cluster.scale import Scale  # noqa: E402

GIB = 2**30
SOURCE = SimpleNamespace(
    key="000001-ab",
    manifest=SimpleNamespace(shards=[SimpleNamespace(file="shard-000.faiss")]),
    sizes={"shard-000.faiss": GIB, "embeddings.npy": GIB},
)
OPENS_S = keepers.opening_s(SOURCE)


class Replica:
    """An actor. Its pings are answered when a test sets `problem` to what it says, or to what is raised."""

    def __init__(self):
        self.problem = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: self))
        self.says = None


class Cluster:
    """What the keeper uses of Ray."""

    def __init__(self):
        self.now, self.wall = 1000.0, 2000.0
        self.started, self.killed, self.restarted = [], [], []
        self.alive = {"a", "b"}

    def nodes(self):
        return [
            {
                "NodeID": 56 * name,
                "NodeManagerHostname": name,
                "NodeManagerAddress": f"10.0.0.{ord(name)}",
                "Resources": {"CPU": 1.0},
                "Alive": name in self.alive,
            }
            for name in ("a", "b")
        ]

    def remote(self, **_):
        return lambda _: SimpleNamespace(options=self._options)

    def _options(self, *, name, **_):
        return SimpleNamespace(remote=lambda source, number: self._start(name.split("/")[2]))

    def _start(self, node):
        replica = Replica()
        self.started.append((node, replica))
        return replica

    def kill(self, actor, no_restart=True):
        (self.killed if no_restart else self.restarted).append(actor)

    def wait(self, pings, **_):
        return [each for each in pings if each.says is not None], []

    def get(self, ping):
        says, ping.says = ping.says, None
        if isinstance(says, Exception):
            raise says
        return says

    def get_runtime_context(self):
        return SimpleNamespace(current_actor="the keeper")


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(keepers, "ray", cluster)
    monkeypatch.setattr(keepers, "_ray", cluster)
    monkeypatch.setattr(keepers, "list_named_actors", list)
    clocks = SimpleNamespace(monotonic=lambda: cluster.now, time=lambda: cluster.wall)
    monkeypatch.setattr(keepers, "time", clocks)
    return cluster


@pytest.fixture
def start_keeper(cluster, monkeypatch):
    """`start_keeper()`: a keeper, whose steps a test makes; what an earlier one knew in memory, it does not."""
    monkeypatch.setattr(keepers.Keeper, "_work", lambda keeper: None)
    return lambda: keepers.Keeper(lease_s=1e9)


def table_of(keeper, wished=Scale(1)):  # noqa: B008 (it is frozen)
    return keeper.renew("a front end", {SOURCE.key: SOURCE}, wished)[1][SOURCE.key]


def step(keeper, cluster, seconds=0.25):
    cluster.now += seconds
    keeper._step()


@pytest.fixture
def opening(start_keeper, cluster):
    """A keeper that has had one replica started, which has not answered yet."""
    keeper = start_keeper()
    keeper.renew("a front end", {SOURCE.key: SOURCE}, Scale(1))
    step(keeper, cluster)
    step(keeper, cluster)
    return keeper


def test_a_replica_that_does_not_come_to_open_its_shard_is_told_and_another_tries(opening, cluster):
    ((node, hanging),) = cluster.started
    step(opening, cluster, OPENS_S - 1)
    assert (cluster.killed, table_of(opening).problem) == ([], "")
    step(opening, cluster, 2)
    assert cluster.killed == [hanging]
    (_, (elsewhere, second)) = cluster.started
    assert elsewhere != node
    problem = table_of(opening).problem
    assert problem.startswith(f"node {node[0]} ({node[:12]}): shard-000.faiss is not open after ")
    second.says = ""
    step(opening, cluster)
    step(opening, cluster)
    assert (table_of(opening).settled, table_of(opening).problem) == (True, "")


def test_a_place_where_a_replica_has_hung_is_tried_again(opening, cluster):
    keeper = opening
    for _ in range(4):
        step(keeper, cluster, OPENS_S + 1)
    assert {node for node, _ in cluster.started} == {56 * "a", 56 * "b"}
    assert len(cluster.started) == 5


@pytest.mark.parametrize("was_up", [False, True])
def test_a_replica_whose_process_dies_each_time_that_it_opens_is_told_and_another_tries(opening, cluster, was_up):
    ((_, dying),) = cluster.started
    if was_up:
        dying.says = ""
        step(opening, cluster)
    for _ in range(int(OPENS_S) + 5):
        dying.says = ActorUnavailableError("it restarts", None)
        step(opening, cluster, 1)
    assert cluster.killed == [dying]
    assert "shard-000.faiss is not open" in table_of(opening).problem


def test_a_replica_that_is_up_may_take_that_long_to_open_when_ray_restarts_it(opening, cluster):
    ((_, replica),) = cluster.started
    replica.says = ""
    step(opening, cluster)
    step(opening, cluster, 2)
    step(opening, cluster, 31)
    assert cluster.restarted == [replica]
    replica.says = ActorUnavailableError("it restarts", None)
    step(opening, cluster)
    step(opening, cluster, OPENS_S - 1)
    replica.says = ""
    step(opening, cluster)
    assert (table_of(opening).settled, cluster.killed) == (True, [])


def renewed(keeper, front, scale):
    """Return the number that a front end has after it has renewed."""
    return keeper.renew(front, {SOURCE.key: SOURCE}, scale)[0]


def test_an_operators_number_outlives_the_keeper_whoever_is_the_first_to_come_back(start_keeper, cluster, until):
    keeper = start_keeper()
    scale = renewed(keeper, "old", Scale(1))
    operator = threading.Thread(target=keeper.scale, args=(3,))
    operator.start()
    scale = until(lambda: said if (said := renewed(keeper, "old", scale)).replicas == 3 else None)
    renewed(keeper, "old", scale)
    operator.join()
    cluster.wall += 60
    keeper = start_keeper()
    new = renewed(keeper, "new", Scale(1))
    scale = renewed(keeper, "old", scale)
    assert [scale.replicas, renewed(keeper, "new", new).replicas] == [3, 3]


def test_the_number_that_front_ends_share_outlives_the_keeper_too(start_keeper, cluster):
    scale = renewed(start_keeper(), "old", Scale(2))
    cluster.wall += 60
    keeper = start_keeper()
    new = renewed(keeper, "new", Scale(1))
    cluster.wall += 1
    scale = renewed(keeper, "old", scale)
    assert [scale.replicas, renewed(keeper, "new", new).replicas] == [2, 2]


def test_an_operator_who_says_another_number_is_heard_though_front_ends_have_an_older_one(start_keeper, until):
    old = Scale(3, begun=1.0, ordered=2.0)
    keeper = start_keeper()
    renewed(keeper, "new", Scale(1))
    said = []
    operator = threading.Thread(target=lambda: said.append(keeper.scale(4)))
    operator.start()
    scale = until(lambda: now if (now := renewed(keeper, "old", old)).replicas == 4 else None)
    assert not said, "no front end has it yet"
    renewed(keeper, "old", scale)
    operator.join()
    assert said == [True]
    assert renewed(keeper, "new", Scale(1)).replicas == 4


def test_a_number_that_no_front_end_takes_over_was_not_taken(start_keeper, monkeypatch):
    monkeypatch.setattr(keepers, "_TAKEN_S", 0.01)
    keeper = start_keeper()
    assert not keeper.scale(3)
    renewed(keeper, "gone", Scale(1))
    assert not keeper.scale(3)


def up_on_both(keeper, cluster):
    keeper.renew("a front end", {SOURCE.key: SOURCE}, Scale(2))
    step(keeper, cluster)
    for _, replica in cluster.started:
        replica.says = ""
    step(keeper, cluster)
    for _, replica in cluster.started:
        replica.says = ""
    step(keeper, cluster)


def test_a_node_that_dies_is_told_as_gone_until_another_has_its_replicas(start_keeper, cluster):
    keeper = start_keeper()
    cluster.alive = {"a"}
    up_on_both(keeper, cluster)
    cluster.alive = {"a", "b"}
    step(keeper, cluster)
    _, replica = cluster.started[-1]
    replica.says = keepers.RayError("The actor died because its node has died.")
    step(keeper, cluster)
    step(keeper, cluster)
    cluster.alive = {"a"}
    step(keeper, cluster, 10)
    table = table_of(keeper)
    assert "its node has died" not in table.problem
    assert (table.settled, table.problem) == (True, "")


def test_while_a_version_is_not_settled_a_node_that_died_is_told_as_gone(start_keeper, cluster):
    keeper = start_keeper()
    keeper.renew("a front end", {SOURCE.key: SOURCE}, Scale(2))
    step(keeper, cluster)
    step(keeper, cluster)
    node, replica = cluster.started[0]
    replica.says = keepers.RayError("The actor died because its node has died.")
    step(keeper, cluster)
    assert table_of(keeper).problem == f"node {node[0]} ({node[:12]}): The actor died because its node has died."
    cluster.alive -= {node[0]}
    step(keeper, cluster)
    assert table_of(keeper).problem == f"node {node[0]} ({node[:12]}): the node is gone"


def test_a_node_that_goes_in_the_middle_of_a_step_is_there_for_all_of_it(start_keeper, cluster, monkeypatch):
    keeper = start_keeper()
    alive, gone = cluster.nodes(), [node | {"Alive": node["NodeManagerHostname"] == "a"} for node in cluster.nodes()]
    answers = [alive]
    monkeypatch.setattr(cluster, "nodes", lambda: answers.pop() if answers else gone)
    keeper.renew("a front end", {SOURCE.key: SOURCE}, Scale(1))
    step(keeper, cluster)
    assert table_of(keeper).nodes == (f"a ({12 * 'a'})", f"b ({12 * 'b'})")
    step(keeper, cluster)
    assert table_of(keeper).nodes == (f"a ({12 * 'a'})",)


def test_the_status_names_units_machines_and_what_is_short(start_keeper, cluster):
    keeper = start_keeper()
    keeper.renew("a front end", {SOURCE.key: SOURCE}, Scale(3))
    for _ in range(3):
        step(keeper, cluster)
        for _, replica in cluster.started:
            replica.says = ""
    step(keeper, cluster)
    status = keeper.status()
    assert status["front_ends"] == [{"name": "a front end", "expires_in_s": pytest.approx(1e9, rel=1e-6)}]
    assert status["nodes"][0] == {"host": "a", "address": "10.0.0.97", "cores": 1.0, "id": 56 * "a"}
    version = status["versions"][SOURCE.key]
    assert (version["settled"], version["short_of"]) == (True, 1)
    assert [sorted(each.items()) for each in version["shards"][0]] == [
        [("node", f"{name} ({12 * name})"), ("state", "up")] for name in "ab"
    ]
