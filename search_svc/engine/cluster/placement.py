"""Which node gets which replica. Pure."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

Shard = tuple[str, int]
"""A version, by its key, and the number of a shard in it."""
Place = tuple[Shard, str]
"""A replica is known by its shard and the node that it is on: no node has two of one shard."""


def missing(
    wanted: Mapping[Shard, int], placed: Collection[Place], nodes: Mapping[str, float], barred: Collection[Place] = ()
) -> Iterator[Place]:
    """Yield where to put replicas that are wanted and not placed, as far as there are nodes that have none of that shard.

    `wanted` is how many replicas each shard should have, and `nodes` the cores of each node; a node without cores gets none.
    The node with the fewest replicas a core comes first. The places in `barred` are left empty.
    """
    load = Counter(node for _, node in placed)
    taken = {*placed, *barred}
    have = Counter(shard for shard, _ in placed)
    # Every shard gets its first replica before any gets its second.
    for turn in range(max(wanted.values(), default=0)):
        for shard, count in wanted.items():
            free = [node for node, cores in nodes.items() if cores > 0 and (shard, node) not in taken]
            if have[shard] > turn or count <= turn or not free:
                continue
            node = min(free, key=lambda node: ((load[node] + 1) / nodes[node], node))
            load[node] += 1
            have[shard] += 1
            taken.add((shard, node))
            yield shard, node


def surplus(wanted: Mapping[Shard, int], placed: Mapping[Place, bool]) -> Iterator[Place]:
    """Yield the replicas that are not wanted: first those that are not up, then those on the nodes with the most replicas.

    `placed` says which replicas are up.
    """
    load = Counter(node for _, node in placed)
    have = Counter(shard for shard, _ in placed)
    for shard, node in sorted(placed, key=lambda place: (placed[place], -load[place[1]], place)):
        if have[shard] > wanted.get(shard, 0):
            have[shard] -= 1
            yield shard, node
