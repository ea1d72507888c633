"""Compare two results, and tell whether the newer one is worse."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.result import FORMAT
from loadtest.table import ABSENT, aligned

_SAME = (
    *("target", "batch", "photos", "distinct", "size", "subject", "options"),
    *("arrivals", "duration_s", "slo_p99_ms", "processes", "connections"),
)
"""Settings that should be equal in both results: otherwise the figures measure different things."""


class CannotCompareError(ValueError):
    """Raised if the files are no results, or have no load in common."""


@dataclass(frozen=True)
class Allowed:
    """The changes for the worse that are allowed, as shares: 0.2 is 20 %."""

    p99_increase: float = 0.2
    throughput_decrease: float = 0.1
    errors_increase: float = 0.01


@dataclass(frozen=True)
class Change:
    """One figure in both results."""

    load: str
    figure: str
    old: float | None
    new: float | None
    change: float | None
    """The change as a share of the old figure; for errors, the difference. None if one of the figures is absent."""
    regressed: bool
    unsure: bool = False
    """Whether the 95 % intervals of both overlap, so that the change may be chance."""


@dataclass(frozen=True)
class Comparison:
    changes: tuple[Change, ...]
    remarks: tuple[str, ...]

    @property
    def regressed(self) -> bool:
        return any(change.regressed for change in self.changes)


def load(path: Path) -> dict[str, Any]:
    """Read a result. Raise CannotCompareError if the file is none, OSError if it can't be read."""
    try:
        result = json.loads(path.read_text())
        known = result["format"] == FORMAT and isinstance(result["steps"], list)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise CannotCompareError(f"{path} is no result of vmmr loadtest --json, or one of another version")
    return dict(result)


def compare(old: dict[str, Any], new: dict[str, Any], allowed: Allowed) -> Comparison:
    """Compare two results. Raise CannotCompareError if their targets differ, or they have no load in common."""
    if old["plan"]["target"] != new["plan"]["target"]:
        raise CannotCompareError(f"one is of {old['plan']['target']}, the other of {new['plan']['target']}")
    before, after = _by_load(old), _by_load(new)
    common = [key for key in before if key in after]
    changes = [change for key in common for change in _of_step(_name(key), before[key], after[key], allowed)]
    changes += _of_knee(old, new, allowed)
    if not changes:
        raise CannotCompareError("they have no load in common: give both the same --rate or --concurrency")
    return Comparison(tuple(changes), tuple(_remarks(old, new, before, after)))


def table(comparison: Comparison, allowed: Allowed) -> str:
    rows = [["LOAD", "FIGURE", "OLD", "NEW", "CHANGE", ""]]
    rows += [
        [each.load, each.figure, _figure(each.old), _figure(each.new), _change(each), _word(each)]
        for each in comparison.changes
    ]
    limits = (
        f"allowed: p99 +{allowed.p99_increase:.0%}, throughput -{allowed.throughput_decrease:.0%},"
        f" refused or failed +{100 * allowed.errors_increase:g} points"
    )
    verdict = "REGRESSED" if comparison.regressed else "no regression"
    return "\n".join([*aligned(rows, left=5), "", *comparison.remarks, limits, verdict])


def _by_load(result: dict[str, Any]) -> dict[tuple[str, float], dict[str, Any]]:
    """Return the steps by mode and load; of a load that was measured twice, the first."""
    found: dict[tuple[str, float], dict[str, Any]] = {}
    for step in result["steps"]:
        found.setdefault((step["mode"], step["load"]), step)
    return found


def _name(key: tuple[str, float]) -> str:
    return f"{key[1]:g}/s" if key[0] == "open" else f"{key[1]:g} at once"


def _of_step(name: str, old: dict[str, Any], new: dict[str, Any], allowed: Allowed) -> Iterator[Change]:
    yield _p99(name, old["latency"], new["latency"], allowed)
    rate = _share(old["answered_per_s"], new["answered_per_s"])
    slower = rate is not None and rate < -allowed.throughput_decrease
    yield Change(name, "answered/s", old["answered_per_s"], new["answered_per_s"], rate, slower)
    errors = [100 * (step["refused"] + step["failed"] + step["unsent"]) / max(step["calls"], 1) for step in (old, new)]
    more = (errors[1] - errors[0]) / 100
    yield Change(name, "not answered, %", errors[0], errors[1], more, more > allowed.errors_increase)


def _p99(name: str, old: Any, new: Any, allowed: Allowed) -> Change:
    """Compare the p99 of two latencies. None means that nothing was answered, which is worse than any p99."""
    if not old or not new:
        return Change(name, "p99 ms", old and old["p99_ms"], new and new["p99_ms"], None, bool(old))
    change = _share(old["p99_ms"], new["p99_ms"])
    worse = change is not None and change > allowed.p99_increase
    return Change(name, "p99 ms", old["p99_ms"], new["p99_ms"], change, worse, _overlap(old, new))


def _overlap(old: dict[str, Any], new: dict[str, Any]) -> bool:
    (low, high), (new_low, new_high) = old["p99_between_ms"], new["p99_between_ms"]
    return bool(low <= new_high and new_low <= high)


def _of_knee(old: dict[str, Any], new: dict[str, Any], allowed: Allowed) -> Iterator[Change]:
    for name, figure in (("knee", "calls/s"), ("slo", "highest calls/s")):
        ends: list[Any] = [(result["knee"] or {}).get(name) for result in (old, new)]
        if all(ends):
            before, after = ends[0]["rate"], ends[1]["rate"]
            change = _share(before, after)
            worse = before is not None and (after is None or (change or 0.0) < -allowed.throughput_decrease)
            yield Change(name, figure, before, after, change, worse)


def _share(old: float | None, new: float | None) -> float | None:
    return None if not old or new is None else new / old - 1


def _remarks(old: dict[str, Any], new: dict[str, Any], before: Any, after: Any) -> Iterator[str]:
    for name in _SAME:
        was, now = (each["plan"].get(name) for each in (old, new))  # older results lack later settings
        if was != now:
            yield f"! {name} was {was}, is {now}: these are figures of different things"
    if old["machine"] != new["machine"]:
        yield "! the two were measured from different machines"
    for name, result in (("old", old), ("new", new)):
        if result["doubts"]:
            yield f"! in the {name} one the generator was a limit: {result['doubts'][0]}"
        if result["ended_early"]:
            yield f"! the {name} one ended early: {result['ended_early']}"
    # Which loads a search for the knee tries depends on what it finds: none of them is missing.
    if missing := [] if new["knee"] else [_name(key) for key in before if key not in after]:
        yield f"! the new one lacks {', '.join(missing)}"


def _figure(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3g}" if value < 100 else f"{value:.1f}"


def _change(change: Change) -> str:
    if change.change is None:
        return ABSENT
    return f"{100 * change.change:+.1f} points" if "%" in change.figure else f"{100 * change.change:+.1f}%"


def _word(change: Change) -> str:
    if not change.regressed:
        return ""
    return "REGRESSED (perhaps by chance: the 95 % intervals overlap, measure longer)" if change.unsure else "REGRESSED"
