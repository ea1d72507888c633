"""Choose the rate to try next in a search for the highest that passes. Pure: points in, a rate out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

KNEE = 3.0
"""The p99 at the knee, as a multiple of the p99 at the lowest rate."""
KEEPS_UP = 0.95
"""The share of offered calls that a service answers while it keeps up."""
_FIRST = (0.2, 0.5, 0.8, 1.0)
"""The rates to try first, as shares of the capacity."""
_UP, _DOWN = 1.25, 0.5
_TRIES = 2
"""How often to try a rate that failed although a higher one passed: something else may have disturbed it."""


@dataclass(frozen=True)
class Point:
    """The result at one rate."""

    rate: float
    """Calls/s that were offered."""
    answered: float
    """The share of calls that was answered."""
    p99_ms: float | None
    """None if no call was answered."""
    meets_slo: bool = True


Goal: TypeAlias = Callable[[Point], bool]


def goals(points: Sequence[Point], *, slo: bool) -> list[Goal]:
    """Return the conditions that a rate must pass: to be before the knee, and to meet the SLO if there is one."""
    of_knee: Goal = lambda point: before_knee(point, points)  # noqa: E731
    return [of_knee, *([meets] if slo else [])]


def before_knee(point: Point, points: Sequence[Point]) -> bool:
    lowest = min(points, key=lambda each: each.rate).p99_ms
    if point.answered < KEEPS_UP or point.p99_ms is None or lowest is None:
        return False
    return point.p99_ms <= KNEE * lowest


def meets(point: Point) -> bool:
    return point.meets_slo


def border(points: Sequence[Point], goal: Goal) -> tuple[float | None, float | None]:
    """Return the highest rate that passes, and the lowest above it that fails. A rate passes if it did in any try."""
    rates = sorted({point.rate for point in points})
    fine = {rate for rate in rates if any(goal(point) for point in points if point.rate == rate)}
    fails_at = next((rate for rate in rates if rate not in fine), None)
    below = [rate for rate in fine if fails_at is None or rate < fails_at]
    return max(below, default=None), fails_at


def next_rate(points: Sequence[Point], capacity: float, *, slo: bool, precision: float, most: int) -> float | None:
    """Return the next rate to try, or None at the end of the search. `capacity`: a first guess at the most calls/s."""
    if len(points) >= most:
        return None
    if not points:
        return rounded(_FIRST[0] * capacity)
    wanted = goals(points, slo=slo)
    return (
        _upwards(points, capacity, wanted)
        or _again(points, wanted)
        or _downwards(points, capacity, wanted)
        or _between(points, wanted, precision)
    )


def _again(points: Sequence[Point], wanted: Sequence[Goal]) -> float | None:
    """Return a rate to try again: it failed below one that passed."""
    for goal in wanted:
        fine = [point.rate for point in points if goal(point)]
        for rate in sorted({point.rate for point in points if point.rate < max(fine, default=0.0)} - set(fine)):
            if sum(point.rate == rate for point in points) < _TRIES:
                return rate
    return None


def _upwards(points: Sequence[Point], capacity: float, wanted: Sequence[Goal]) -> float | None:
    """Return the next of the first rates; after those, a higher one while any goal is met at the highest."""
    highest = max(point.rate for point in points)
    first = (rounded(share * capacity) for share in _FIRST)
    if rate := next((rate for rate in first if rate > highest), None):
        return rate
    return rounded(_UP * highest) if any(border(points, goal)[1] is None for goal in wanted) else None


def _downwards(points: Sequence[Point], capacity: float, wanted: Sequence[Goal]) -> float | None:
    """Return a lower rate while any goal is missed at the lowest, down to 1 % of the capacity."""
    lowest = min(point.rate for point in points)
    if all(border(points, goal)[0] is not None for goal in wanted) or lowest < 0.01 * capacity:
        return None
    return rounded(_DOWN * lowest)


def _between(points: Sequence[Point], wanted: Sequence[Goal], precision: float) -> float | None:
    """Return the middle of the widest gap between a rate that passes and one that fails."""
    gaps = [(fails_at / fine, fine, fails_at) for fine, fails_at in _borders(points, wanted)]
    if not gaps or max(gaps)[0] <= 1 + precision:
        return None
    _, fine, fails_at = max(gaps)
    middle = rounded((fine + fails_at) / 2)
    return middle if fine < middle < fails_at else None


def rounded(rate: float) -> float:
    """Round to three digits: nobody needs 37.284913 calls/s."""
    return float(f"{rate:.3g}")


def _borders(points: Sequence[Point], wanted: Sequence[Goal]) -> list[tuple[float, float]]:
    found = [border(points, goal) for goal in wanted]
    return [(fine, fails_at) for fine, fails_at in found if fine is not None and fails_at is not None]
