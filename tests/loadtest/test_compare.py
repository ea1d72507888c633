"""Whether the newer of two results is worse."""

import copy
import json
from dataclasses import asdict

import pytest

from loadtest import compare, measure
from loadtest.compare import Allowed, CannotCompareError
from loadtest.plan import Closed, Open, Plan
from loadtest.recorder import Record, record
from loadtest.result import FORMAT, Border, Knee


def step(load, p99_ms=20.0, per_s=100.0, refused=0, calls=1000):
    found = Record(window_s=10.0, done=round(10 * per_s), refused=refused)
    for number in range(calls):
        record(found.latency, (p99_ms if number % 50 == 0 else p99_ms / 2) / 1e3)
    found.failures["RESOURCE_EXHAUSTED", "QUEUE_FULL"] = refused
    found.messages["RESOURCE_EXHAUSTED", "QUEUE_FULL"] = "full"
    return json.loads(json.dumps(asdict(measure.step(Plan(target="embed"), load, found, None))))


def result(*steps, knee=None, **plan):
    usual = dict.fromkeys(compare._SAME) | {"target": "embed"}
    others = {"doubts": [], "ended_early": "", "machine": {"cores": 2}, "knee": knee and asdict(knee)}
    return {"format": FORMAT, "steps": list(steps), "plan": usual | plan, **others}


OLD = result(step(Open(100)), step(Closed(4)))


def regressions(new, old=OLD, allowed=Allowed()):  # noqa: B008
    return [(each.load, each.figure) for each in compare.compare(old, new, allowed).changes if each.regressed]


def test_the_same_result_is_no_regression():
    comparison = compare.compare(OLD, copy.deepcopy(OLD), Allowed())
    assert not comparison.regressed
    assert comparison.remarks == ()
    assert [(each.load, each.figure, each.change) for each in comparison.changes] == [
        (load, figure, 0) for load in ("100/s", "4 at once") for figure in ("p99 ms", "answered/s", "not answered, %")
    ]


@pytest.mark.parametrize(
    ("worse", "figure"),
    [
        ({"p99_ms": 25.0}, "p99 ms"),
        ({"per_s": 89.0}, "answered/s"),
        ({"refused": 20}, "not answered, %"),
    ],
)
def test_each_figure_that_got_worse_than_allowed_is_a_regression(worse, figure):
    assert regressions(result(step(Open(100), **worse), step(Closed(4)))) == [("100/s", figure)]
    assert regressions(result(step(Open(100)), step(Closed(4), **worse))) == [("4 at once", figure)]


def test_what_is_allowed_is_no_regression_and_what_got_better_is_none():
    new = result(step(Open(100), p99_ms=23.5, per_s=91.0, refused=5), step(Closed(4), p99_ms=2.0, per_s=900.0))
    assert regressions(new) == []
    assert regressions(new, allowed=Allowed(p99_increase=0.1)) == [("100/s", "p99 ms")]
    assert regressions(new, allowed=Allowed(throughput_decrease=0.05)) == [("100/s", "answered/s")]
    assert regressions(new, allowed=Allowed(errors_increase=0.001)) == [("100/s", "not answered, %")]


def test_a_load_of_which_nothing_is_answered_any_more_is_a_regression():
    assert ("100/s", "p99 ms") in regressions(result(step(Open(100), per_s=0.0, refused=100, calls=0), step(Closed(4))))


def test_a_lower_knee_or_highest_rate_is_a_regression():
    def found(rate):
        return result(
            step(Open(rate or 5)), knee=Knee(Border(rate, 1.0, 99.0, False), Border(rate, 1.0, 99.0, False), 1)
        )

    assert regressions(found(80.0), found(100.0)) == [("knee", "calls/s"), ("slo", "highest calls/s")]
    assert regressions(found(95.0), found(100.0)) == []
    assert regressions(found(None), found(100.0)) == [("knee", "calls/s"), ("slo", "highest calls/s")]


def test_a_change_that_may_be_chance_is_told_as_such():
    few = result(step(Open(100), calls=30))
    [p99, *_] = compare.compare(few, result(step(Open(100), p99_ms=25.0, calls=30)), Allowed()).changes
    assert (p99.regressed, p99.unsure) == (True, True)
    [p99, *_] = compare.compare(OLD, result(step(Open(100), p99_ms=60.0)), Allowed()).changes
    assert (p99.regressed, p99.unsure) == (True, False)


def test_a_result_of_before_there_was_a_setting_has_its_default():
    old = copy.deepcopy(OLD)
    del old["plan"]["subject"]
    assert compare.compare(old, OLD, Allowed()).remarks == ()
    (remark,) = compare.compare(old, result(step(Open(100)), step(Closed(4)), subject="whole"), Allowed()).remarks
    assert remark == "! subject was None, is whole: these are figures of different things"


def test_results_of_different_things_are_told_apart():
    other = result(step(Open(100)), batch=4) | {"machine": {"cores": 64}, "doubts": ["100/s: late"], "ended_early": "x"}
    remarks = "\n".join(compare.compare(OLD, other, Allowed()).remarks)
    for remark in (
        "batch was None, is 4",
        "different machines",
        "generator was a limit",
        "ended early",
        "lacks 4 at once",
    ):
        assert remark in remarks
    with pytest.raises(CannotCompareError, match="one is of embed, the other of search"):
        compare.compare(OLD, result(step(Open(100)), target="search"), Allowed())
    with pytest.raises(CannotCompareError, match="no load in common"):
        compare.compare(OLD, result(step(Open(200))), Allowed())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 0, "steps": []}'])
def test_a_file_that_is_no_result_is_named(tmp_path, content):
    path = tmp_path / "old.json"
    path.write_text(content)
    with pytest.raises(CannotCompareError, match=r"old\.json is no result of vmmr loadtest"):
        compare.load(path)
