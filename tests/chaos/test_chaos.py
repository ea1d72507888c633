"""The chaos run, short: one fault of four kinds. The long one is `python -m tests.chaos --faults 30 --minutes 60`."""

import json
import os
import subprocess
import sys

import pytest

from tests.chaos.__main__ import table, well
from tests.chaos.load import Call, Load, _steady

KINDS = ("kill reader", "full disk", "slow disk", "partition")


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_and_no_answer_is_wrong_whatever_fails(root, tmp_path):
    out = tmp_path / "chaos.json"
    flags = ("--faults", "4", "--minutes", "0.08", "--kinds", ",".join(KINDS), "--out", out)
    command = [sys.executable, "-m", "tests.chaos", *map(str, flags)]
    place = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=root, env=place, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_bytes())
    assert (result["lost"], result["wrong"]) == (0, 0)
    assert result["acknowledged"] > 0
    assert {each["fault"] for each in result["faults"]} | result["left_out"].keys() == set(KINDS)
    leftover = subprocess.run(["mount"], capture_output=True, text=True, check=False).stdout
    assert str(tmp_path) not in leftover


def call(began, error="", kind="add"):
    return Call(kind, began, began + 0.5, error)


def test_calls_are_well_again_when_three_in_a_row_succeed():
    assert _steady([call(1), call(2)]) is None
    assert _steady([call(1), call(2, "UNAVAILABLE"), call(3), call(4), call(5)]) == call(3)


def test_figures_are_of_the_calls_that_ended_in_a_span():
    load = Load.__new__(Load)
    load.calls = [call(0), call(1, "JOURNAL_FULL"), call(1.1, kind="photo"), call(9)]
    seen = load.figures(1, 3)
    assert (seen["good"], seen["good_per_s"], seen["errors"]) == (1, 0.5, {"add: JOURNAL_FULL": 1})


@pytest.mark.parametrize(
    ("changes", "good"),
    [({}, True), ({"lost": 1}, False), ({"wrong": 1}, False), ({"faults": []}, False), ({"recovered_s": None}, False)],
)
def test_what_is_lost_wrong_or_never_well_again_fails_the_run(changes, good):
    part = {"good_per_s": 2.0, "good": 4, "errors": {}, "slowest_s": 0.1}
    fault = {
        "fault": "partition",
        "recovered_s": 1.5,
        "before": part,
        "during": part | {"errors": {"add: X": 2}},
        "after": part,
    }
    result = {"faults": [fault], "lost": 0, "wrong": 0, "calls": 9, "acknowledged": 3, "left_out": {"x": "no root"}}
    if "recovered_s" in changes:
        result["faults"] = [fault | changes]
    else:
        result |= changes
    assert well(result) == good
    if good:
        assert "| partition | 2.0 | 2.0 | 2.0 | 1.5 | add: X 2 |" in table(result)
