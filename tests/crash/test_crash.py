"""The crash test, short: one kill of each kind. The long run is `python -m tests.crash --kills 200`."""

import subprocess
import sys

import pytest


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_and_nothing_is_half_there_whatever_is_killed(root):
    command = [sys.executable, "-m", "tests.crash", "--kills", "4", "--writers", "2"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost = 0, half there = 0, wrong answers = 0" in done.stdout
    assert "kills 4 (all 1, all during compaction 1, compaction 1, worker 1)" in done.stdout
