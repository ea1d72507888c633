"""Findings: what a check says of one thing."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, but not as it could, or not for long."""
    FAIL = "fail"
    NOT_CHECKED = "not checked"
    """Nothing is known of it; the text says why."""


@dataclass(frozen=True)
class Finding:
    check: str
    state: State
    text: str
    advice: str = ""
    """What to do; empty if there is nothing to do."""


def ok(check: str, text: str) -> Finding:
    return Finding(check, State.OK, text)


def warn(check: str, text: str, advice: str) -> Finding:
    return Finding(check, State.WARN, text, advice)


def fail(check: str, text: str, advice: str) -> Finding:
    return Finding(check, State.FAIL, text, advice)


def not_checked(check: str, why: str) -> Finding:
    return Finding(check, State.NOT_CHECKED, why)


def guarded(check: str, run: Callable[[], Finding]) -> Finding:
    """Return what a check finds; if it fails in a way that nobody foresaw, that it found nothing, and why."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001 (one check that fails must not keep the others from being told)
        return not_checked(check, f"the check itself failed: {type(error).__name__}: {error}")


def lines(findings: list[Finding]) -> str:
    """Return the findings for people."""
    width = max(len(each.check) for each in findings)
    return "\n".join(_line(each, width) for each in findings)


def fields(finding: Finding) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(finding).items()}


def _line(finding: Finding, width: int) -> str:
    advice = f"\n{'':{len(State.NOT_CHECKED)}}  {'':{width}}  -> {finding.advice}" if finding.advice else ""
    return f"{finding.state:{len(State.NOT_CHECKED)}}  {finding.check:{width}}  {finding.text}{advice}"
