"""The pages about errors and operations say what is so."""

import dataclasses
import re
from pathlib import Path

import pytest

from svckit.errors import STATUS, Reason, ServiceError
from svckit.metrics import Metrics
from svckit.server import ServerConfig

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = (DOCS / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_table_of_errors_has_every_reason_with_its_status_when_and_what_to_do():
    table = rows("errors.md", "Reasons")
    documented = {quoted(reason)[0]: quoted(status)[0] for reason, status, _, _ in table}
    assert documented == {reason.value: ServiceError(reason, "").status.name for reason in Reason}
    assert len(table) == len(Reason)
    assert all(when and what for _, _, when, what in table)
    assert set(STATUS) <= set(Reason)


def test_every_metric_is_documented_and_every_documented_metric_exists():
    documented = {name for row in rows("operations.md", "Metrics") for name in quoted(row[0])}
    exported = {
        f"{family.name}_total" if family.type == "counter" else family.name for family in Metrics().registry.collect()
    }
    assert documented == exported


def test_the_metrics_of_a_supervisor_are_documented():
    documented = {name for row in rows("operations.md", "Several processes") for name in quoted(row[0])}
    assert documented == {"vmmr_workers", "vmmr_worker_restarts_total"}
    source = (DOCS.parent / "svckit/supervisor.py").read_text()
    assert set(re.findall(r'"(vmmr_\w+)"', source)) == documented


def test_the_metrics_of_tls_are_documented():
    documented = {name for row in rows("operations.md", "TLS") for name in quoted(row[0])}
    source = (DOCS.parent / "svckit/tls.py").read_text()
    assert documented == set(re.findall(r'"(vmmr_\w+)"', source)) != set()


def test_every_setting_of_a_server_is_documented_with_its_default():
    documented = {flag: row[1].strip("`") for row in rows("operations.md", "Configuration") for flag in quoted(row[0])}
    defaults = {"--" + field.name.replace("_", "-"): field.default for field in dataclasses.fields(ServerConfig)}
    assert documented.keys() == defaults.keys()
    fixed = {flag: default for flag, default in defaults.items() if default not in (None, False) and flag != "--port"}
    assert {flag: type(default)(documented[flag]) for flag, default in fixed.items()} == fixed


@pytest.mark.parametrize("message", [row[0] for row in rows("operations.md", "Logs")])
def test_every_documented_log_message_is_one_of_ours(message):
    (name,) = quoted(message)
    sources = (path.read_text() for path in (DOCS.parent / "svckit").rglob("*.py"))
    calls = [f'_log.{level}("{name}"' for level in ("info", "warning", "error", "exception")]
    assert any(call in source for source in sources for call in calls)
