"""Which rate to try next, on the way to the highest that is still fine. Pure: points in, a rate out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

KNEE = 3.0
"""The p99 at the knee, in units of that at the lowest rate."""
KEEPS_UP = 0.95
"""The share of what is offered that a service answers while it keeps up."""
_FIRST = (0.2, 0.5, 0.8, 1.0)
"""Of the capacity: what is tried first."""
_UP, _DOWN = 1.25, 0.5
_TRIES = 2
"""Of a rate that failed although a higher one was fine: something else may have happened just then."""


@dataclass(frozen=True)
class Point:
    """What came of one rate."""

    rate: float
    """Calls/s, offered."""
    answered: float
    """The share of them that was answered."""
    p99_ms: float | None
    """None: none was answered."""
    meets_slo: bool = True


Goal: TypeAlias = Callable[[Point], bool]


def goals(points: Sequence[Point], *, slo: bool) -> list[Goal]:
    """What a rate must pass: the knee, and the SLO if there is one."""
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
    """The highest rate that is fine and the lowest above it that is not; a rate is fine if it ever was."""
    rates = sorted({point.rate for point in points})
    fine = {rate for rate in rates if any(goal(point) for point in points if point.rate == rate)}
    fails_at = next((rate for rate in rates if rate not in fine), None)
    below = [rate for rate in fine if fails_at is None or rate < fails_at]
    return max(below, default=None), fails_at


def next_rate(points: Sequence[Point], capacity: float, *, slo: bool, precision: float, most: int) -> float | None:
    """None: the search is at its end. `capacity`: a first guess at the most calls/s."""
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
    """A rate that failed below one that was fine."""
    for goal in wanted:
        fine = [point.rate for point in points if goal(point)]
        for rate in sorted({point.rate for point in points if point.rate < max(fine, default=0.0)} - set(fine)):
            if sum(point.rate == rate for point in points) < _TRIES:
                return rate
    return None


def _upwards(points: Sequence[Point], capacity: float, wanted: Sequence[Goal]) -> float | None:
    """The first rates, whatever comes of them, and on while anything is fine at the highest."""
    highest = max(point.rate for point in points)
    first = (rounded(share * capacity) for share in _FIRST)
    if rate := next((rate for rate in first if rate > highest), None):
        return rate
    return rounded(_UP * highest) if any(border(points, goal)[1] is None for goal in wanted) else None


def _downwards(points: Sequence[Point], capacity: float, wanted: Sequence[Goal]) -> float | None:
    """While anything fails at the lowest rate, as far as makes sense."""
    lowest = min(point.rate for point in points)
    if all(border(points, goal)[0] is not None for goal in wanted) or lowest < 0.01 * capacity:
        return None
    return rounded(_DOWN * lowest)


def _between(points: Sequence[Point], wanted: Sequence[Goal], precision: float) -> float | None:
    """The middle of the widest gap between fine and not."""
    gaps = [(fails_at / fine, fine, fails_at) for fine, fails_at in _borders(points, wanted)]
    if not gaps or max(gaps)[0] <= 1 + precision:
        return None
    _, fine, fails_at = max(gaps)
    middle = rounded((fine + fails_at) / 2)
    return middle if fine < middle < fails_at else None


def rounded(rate: float) -> float:
    """To three digits: nobody needs 37.284913 calls/s."""
    return float(f"{rate:.3g}")


def _borders(points: Sequence[Point], wanted: Sequence[Goal]) -> list[tuple[float, float]]:
    found = [border(points, goal) for goal in wanted]
    return [(fine, fails_at) for fine, fails_at in found if fine is not None and fails_at is not None]
