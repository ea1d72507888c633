"""What the log says of replicas and nodes that go and come."""

import pytest

pytest.importorskip("ray", reason="NO RAY HERE: lost replicas were not tested")

from search_svc.engine.cluster.keeper import Placed, Table
from search_svc.engine.cluster.redundancy import Told, missing, without_replica


def table(*shards, wanted=2, nodes="ab"):
    """A table whose shards have replicas on the nodes that are named, which are up where the name is small."""
    placed = tuple(
        tuple(Placed(f"{number}/{node.lower()}", node.lower(), node.lower(), None, node.islower()) for node in shard)
        for number, shard in enumerate(shards)
    )
    return Table(placed, wanted, settled=True, problem="", nodes=tuple(nodes))


@pytest.fixture
def said(caplog):
    """`said(table, ...)`: what is told as one takes the place of the other."""

    def said(*tables):
        caplog.clear()
        told, before = Told(), {}
        for each in tables:
            told.tell(before, {"v": each})
            before = {"v": each}
        return [
            (each.message, getattr(each, "shard", each.nodes), getattr(each, "up", None)) for each in caplog.records
        ]

    return said


def test_a_replica_that_is_lost_and_back_is_told_with_its_shard(said):
    whole = table("ab", "ab")
    assert said(whole, table("aB", "ab"), table("aB", "ab"), whole, whole) == [
        ("a replica is lost", 0, 1),
        ("a replica is back", 0, 2),
    ]


def test_a_node_that_goes_is_told_beside_its_replicas_which_may_come_back_elsewhere(said):
    assert said(table("ab", nodes="abc"), table("a", nodes="ac"), table("ac", nodes="ac")) == [
        ("a replica is lost", 0, 1),
        ("a node of the cluster is gone", 2, None),
        ("a replica is back", 0, 2),
    ]


def test_replicas_that_come_up_for_the_first_time_or_that_nobody_wants_any_more_are_not_told(said):
    assert said(table("AB"), table("aB"), table("ab"), table("a", wanted=1)) == []


def test_what_is_missing_is_counted_by_what_is_wanted():
    tables = [table("ab", "aB", "A"), table("a", wanted=3)]
    assert (missing(tables), without_replica(tables)) == (0 + 1 + 2 + 2, 1)
