"""The dashboard and the alerts ask for metrics that there are, and each alert fires when it should, by promtool's own unit tests."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
ALERTS, TESTS = MONITORING / "alerts.yml", MONITORING / "alerts.test.yml"
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
TIMEOUT_S = 300

GROUPS = yaml.safe_load(ALERTS.read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERT_RULES = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

NAME = r"\b(?:vmmr|grpc|http|process)_\w+"


@cache
def exported():
    """The names of the samples that the programs export, by their sources, and those of prometheus_client's process metrics."""
    sources = [
        path.read_text()
        for room in ("svckit", "embedder_svc", "search_svc", "web")
        for path in (ROOT / room).rglob("*.py")
    ]
    found = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    for kind, name in re.findall(rf'\b(counter|gauge|histogram)\(\s*"({NAME})"', "".join(sources), re.IGNORECASE):
        match kind.lower():
            case "counter":
                found.add(name.removesuffix("_total") + "_total")
            case "gauge":
                found.add(name)
            case "histogram":
                found |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return found


def metrics_in(expression):
    """The names of metrics in an expression of PromQL: what is neither a label nor a recorded name."""
    plain = re.sub(r"\{[^}]*\}|\b(?:by|on|without|ignoring)\s*\([^)]*\)|vmmr:\w+(?::\w+)*", "", expression)
    return set(re.findall(NAME, plain))


EXPRESSIONS = {
    **{rule.get("alert") or rule["record"]: [rule["expr"]] for rule in RULES},
    **{panel["title"]: [target["expr"] for target in panel["targets"]] for panel in PANELS},
}


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_query_is_of_metrics_that_are_exported_and_of_shares_that_are_recorded(where):
    for expression in EXPRESSIONS[where]:
        asked = metrics_in(expression)
        recorded = set(re.findall(r"vmmr:\w+(?::\w+)*", expression))
        assert asked or recorded or re.search(r"\bup\b", expression), expression
        assert asked <= exported()
        assert recorded <= RECORDED


def test_what_is_asked_of_an_expression():
    expression = 'sum by (grpc_code) (rate(vmmr_a_total{grpc_method="vmmr_no"}[5m])) > vmmr:b:ratio_rate5m'
    assert metrics_in(expression) == {"vmmr_a_total"}


def test_the_dashboard_has_what_an_operator_looks_for():
    shown = " ".join(expression for panel in PANELS for expression in (target["expr"] for target in panel["targets"]))
    looked_for = [
        "grpc_server_handled_total",
        "http_requests_total",
        "grpc_server_handling_seconds_bucket",
        "vmmr_queue_age_seconds",
    ]
    looked_for += ["vmmr_errors_total", "vmmr_answers_total", "vmmr_photos_without_car_total", "vmmr_query_drift"]
    looked_for += ["vmmr_journal_depth", "vmmr_compaction_failures_total", "vmmr_disk_free_bytes"]
    assert [name for name in looked_for if name not in shown] == []


def test_panels_have_their_own_place_and_the_data_source_that_is_chosen():
    taken = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y) for at in taken for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(taken)
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}


def test_every_alert_says_what_is_so_and_how_urgent_it_is():
    for rule in ALERT_RULES.values():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


def test_the_page_says_of_every_alert_what_to_do_and_of_no_other():
    rows = re.findall(r"^\| `(Vmmr\w+)` \|.*\| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == list(ALERT_RULES)
    assert all(todo.strip() for _, todo in rows)


def test_every_metric_of_answers_is_on_the_page():
    source = (ROOT / "search_svc/serving/answer_metrics.py").read_text()
    names = re.findall(rf'"({NAME})"', source)
    assert len(names) == 3
    assert all(f"| `{name}` |" in PAGE for name in names)


# --- promtool -----------------------------------------------------------------------------------------------------------

promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed: apt-get install prometheus"
)


def asked_of_promtool(*arguments):
    run = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return run.returncode, run.stdout + run.stderr


@promtool
def test_prometheus_takes_the_rules():
    code, said = asked_of_promtool("check", "rules", ALERTS)
    assert code == 0, said
    assert f"{len(RULES)} rules found" in said


@promtool
def test_prometheus_takes_its_configuration():
    code, said = asked_of_promtool("check", "config", MONITORING / "prometheus.yml")
    assert code == 0, said


@promtool
def test_each_alert_fires_when_it_should_and_not_otherwise():
    code, said = asked_of_promtool("test", "rules", TESTS)
    assert code == 0, said


def test_each_alert_has_a_test_that_it_fires_and_one_that_it_does_not():
    tests = [each for test in yaml.safe_load(TESTS.read_text())["tests"] for each in test["alert_rule_test"]]
    fires = [test["alertname"] for test in tests if test["exp_alerts"]]
    quiet = [test["alertname"] for test in tests if not test["exp_alerts"]]
    assert sorted(fires) == sorted(quiet) == sorted(ALERT_RULES)


WORSE = {
    "VmmrErrorBudgetBurnsFast": ("14.4", "5"),
    "VmmrQueueOld": ("> 1", "> 3"),
    "VmmrSlow": ("0.99", "0.5"),
    "VmmrMuchUnknown": ("> 100", "> 1"),
    "VmmrQueriesDrift": ("0.25", "0.05"),
    "VmmrDiskFull": ("<", ">"),
}
"""What to replace, and by what, in the expressions of alerts."""


@promtool
def test_the_tests_notice_other_rules(tmp_path):
    rules = yaml.safe_load(ALERTS.read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if rule.get("alert") in WORSE):
        old, new = WORSE[rule["alert"]]
        assert old in rule["expr"]
        rule["expr"] = rule["expr"].replace(old, new)
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    tests = yaml.safe_load(TESTS.read_text())
    tests["tests"] = [test for test in tests["tests"] if test["name"].split()[0] in WORSE]
    (tmp_path / TESTS.name).write_text(yaml.safe_dump(tests))
    code, said = asked_of_promtool("test", "rules", tmp_path / TESTS.name)
    assert code != 0
    assert [name for name in WORSE if f"alertname: {name}" not in said] == []
