"""A cluster of two nodes on this machine, for all tests of engine `ray`."""

import os
import time

import pytest

WAIT_S = 240  # each process of Ray takes a second of a core to start, and tests run beside others


@pytest.fixture(scope="session")
def make_cluster(tmp_path_factory):
    """`make_cluster(nodes)`: start a Ray cluster with that many nodes, of two cores each. It ends with the tests."""
    pytest.importorskip("ray", reason="NO RAY HERE: the tests of engine ray did not run")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray._private import services
    from ray.cluster_utils import Cluster

    made, find = [], services.get_node

    def get_node(*about):
        """As Ray's own, but on a machine that is shared a node may take longer to start than the half minute it waits."""
        end = time.monotonic() + WAIT_S
        while True:
            try:
                return find(*about)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def make(nodes):
        size = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
        made.append(cluster)
        for _ in range(nodes - 1):
            cluster.add_node(**size)
        return cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "get_node", get_node)
        yield make
    for cluster in made:
        cluster.shutdown()


@pytest.fixture(scope="session")
def until():
    """`until(condition)`: wait until it holds, and return what it returned."""

    def until(condition):
        end = time.monotonic() + WAIT_S
        while not (held := condition()):
            assert time.monotonic() < end, condition
            time.sleep(0.05)
        return held

    return until
