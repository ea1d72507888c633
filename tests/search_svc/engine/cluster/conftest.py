"""What tests of engine `ray` share."""

import time

import pytest

WAIT_S = 240  # each process of Ray takes a second of a core to start, and tests run beside others


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
