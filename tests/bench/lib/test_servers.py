"""A bench never measures a server that is not there."""

import os
import signal

import pytest

from bench.lib.servers import serving


def test_a_server_that_does_not_start_ends_the_bench_with_its_log(tmp_path):
    with (
        pytest.raises(SystemExit, match=r"did not start(.|\n)*there is no folder"),
        serving("search_svc", "--index", tmp_path / "nothing"),
    ):
        pass


def test_a_server_that_dies_while_it_is_measured_ends_the_bench():
    with (
        pytest.raises(SystemExit, match="ended with exit code -9"),
        serving("search_svc", "--log-level", "warning") as server,
    ):
        os.kill(server.pid, signal.SIGKILL)
