from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from search_svc.engine.cluster.placement import missing, surplus

nodes = st.dictionaries(st.sampled_from("abcde"), st.sampled_from([0.0, 1.0, 2.0, 8.0]))
shards = st.lists(st.tuples(st.sampled_from(["v1", "v2"]), st.integers(0, 3)), unique=True)


@given(shards, st.integers(1, 4), nodes, st.data())
def test_every_shard_gets_its_replicas_on_different_nodes_as_far_as_there_are_nodes(shards, replicas, nodes, data):
    wanted = dict.fromkeys(shards, replicas)
    usable = {node for node, cores in nodes.items() if cores}
    placed = (
        data.draw(st.lists(st.sampled_from([(s, n) for s in shards for n in usable]), unique=True))
        if (shards and usable)
        else []
    )
    removed = list(surplus(wanted, dict.fromkeys(placed, True)))
    kept = [place for place in placed if place not in removed]
    new = list(missing(wanted, kept, nodes))
    everything = kept + new
    assert len(everything) == len(set(everything)), "no node has two replicas of a shard"
    assert {node for _, node in everything} <= usable
    assert Counter(shard for shard, _ in everything) == Counter(
        {shard: min(replicas, len(usable)) for shard in shards if usable}
    )


def test_nodes_get_replicas_by_their_cores():
    placed = list(missing({("v", number): 1 for number in range(9)}, [], {"small": 1.0, "large": 2.0}))
    assert Counter(node for _, node in placed) == {"small": 3, "large": 6}


def test_every_shard_has_one_replica_before_any_has_two():
    first, second, *_ = missing({("v", 0): 2, ("v", 1): 2}, [], {"a": 1.0, "b": 1.0})
    assert (first[0], second[0]) == (("v", 0), ("v", 1))


def test_a_place_where_a_replica_has_just_failed_stays_empty_and_another_node_gets_it():
    shard = ("v", 0)
    assert list(missing({shard: 1}, [], {"a": 1.0, "b": 1.0}, barred=[(shard, "a")])) == [(shard, "b")]
    assert not list(missing({shard: 1}, [], {"a": 1.0}, barred=[(shard, "a")]))


def test_what_is_too_much_goes_from_the_node_with_the_most():
    placed = dict.fromkeys([(("v", 0), "a"), (("v", 0), "b"), (("v", 1), "b")], True)
    assert list(surplus({("v", 0): 1, ("v", 1): 1}, placed)) == [(("v", 0), "b")]
    assert sorted(surplus({}, placed)) == sorted(placed)


def test_of_too_many_replicas_one_that_is_up_stays_wherever_it_is():
    placed = {(("v", 0), "a"): False, (("v", 0), "b"): True, (("v", 1), "b"): True}
    assert list(surplus({("v", 0): 1, ("v", 1): 1}, placed)) == [(("v", 0), "a")]
