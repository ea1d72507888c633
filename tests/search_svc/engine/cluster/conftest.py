"""A cluster of two nodes on this machine, for all tests of engine `ray`."""

import time

import pytest

from demo.ray_nodes import ray_nodes

WAIT_S = 240  # each process of Ray takes a second of a core to start, and tests run beside others


@pytest.fixture(scope="session")
def ray_address():
    pytest.importorskip("ray", reason="NO RAY HERE: the tests of engine ray did not run")
    with ray_nodes(2) as cluster:
        yield cluster.address


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
