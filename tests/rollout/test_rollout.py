"""A rolling update, the short form of `python -m tests.rollout`: one server of each service, whom another replaces."""

import pytest

from tests.rollout.__main__ import Rollout, drawn_photo, run


@pytest.mark.xdist_group("rollout")
def test_servers_are_replaced_under_load_and_no_call_fails():
    result = run(Rollout(calls=60, replicas=1, callers=2, pre_stop_s=1.5), drawn_photo())
    assert (result["failures"], result["failed"]) == ([], 0)
    assert (result["replaced"], result["exit_codes"]) == (2, [0])
    assert result["calls"] >= 60
