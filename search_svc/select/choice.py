"""The choice among the points: the most accurate within the user's limits; of those as accurate, the cheapest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_svc.select.points import Point

MIN_RECALL = 0.98
"""The best of hundreds of points is partly luck; of those that find what exact search finds, less so."""
NOISE = 0.002
"""Differences of dev top-1 that are no reason to pay for."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Limits:
    """What an index may cost, and how good it must be; None: no limit."""

    max_bytes: int | None = None
    """Of all shard files together."""
    max_p99_ms: float | None = None
    min_recall: float = MIN_RECALL
    """Recall@10, 0 to 1."""


@dataclass(frozen=True)
class Excess:
    """A limit that a point does not meet."""

    limit: str
    by: str
    ratio: float
    """How far beyond it, as a part of the limit."""


def cost(point: Point) -> float:
    """Halving memory and halving latency are worth the same."""
    return point.bytes_per_photo * point.timing.p50_ms


def choose(points: Sequence[Point], limits: Limits, items: int) -> Point | None:
    """None if no point meets the limits."""
    return min(contenders(points, limits, items), key=cost, default=None)


def contenders(points: Sequence[Point], limits: Limits, items: int) -> list[Point]:
    """Of the points within the limits, those within `NOISE` of the most accurate."""
    eligible = [point for point in points if not exceeded(point, limits, items)]
    best = max((point.top_1 for point in eligible), default=0.0)
    return [point for point in eligible if point.top_1 >= best - NOISE - _ROUNDING]


def exceeded(point: Point, limits: Limits, items: int) -> list[Excess]:
    """The limits that a point does not meet."""
    size, p99, recall = point.bytes_per_photo * items, point.timing.p99_ms, point.recall_10
    found = []
    if limits.max_bytes is not None and size > limits.max_bytes:
        by = f"{human(size)}, {human(size - limits.max_bytes)} more"
        found.append(Excess(f"--max-memory {human(limits.max_bytes)}", by, size / limits.max_bytes - 1))
    if limits.max_p99_ms is not None and p99 > limits.max_p99_ms:
        by = f"{p99:.3g} ms, {p99 - limits.max_p99_ms:.3g} ms more"
        found.append(Excess(f"--max-p99-ms {limits.max_p99_ms:g}", by, p99 / limits.max_p99_ms - 1))
    if recall < limits.min_recall:
        by = f"{recall:.4f}, {limits.min_recall - recall:.4f} less"
        found.append(Excess(f"--min-recall {limits.min_recall:g}", by, 1 - recall / limits.min_recall))
    return found


def nearest_miss(points: Sequence[Point], limits: Limits, items: int) -> str:
    """Which limits the point that comes nearest to them does not meet, and by how much."""

    def worst(point: Point) -> float:
        return max(excess.ratio for excess in exceeded(point, limits, items))

    nearest = min(points, key=worst)
    each = "; ".join(f"{excess.by} than {excess.limit}" for excess in exceeded(nearest, limits, items))
    return f"no index meets the limits; {nearest.setting} comes nearest, with {each}"


def reason(chosen: Point, points: Sequence[Point], exact: Point, limits: Limits, *, items: int, photos: int) -> str:
    """Why it was chosen, in two sentences. `exact` is the flat index, `photos` those that were asked for."""
    within = contenders(points, limits, items)
    difference = 100 * (chosen.top_1 - exact.top_1)
    how = "as exact's" if abs(difference) < 0.05 else f"{abs(difference):.1f} points {_side(difference)} exact's"
    than_exact = [
        f"{how} {100 * exact.top_1:.1f} % of {photos} dev photos (top-1)",
        _times(exact.bytes_per_photo / chosen.bytes_per_photo, "less memory", "more memory")
        + f" ({human(chosen.bytes_per_photo)} a photo)",
        _times(exact.timing.p50_ms / chosen.timing.p50_ms, "faster", "slower")
        + f" (p50 {chosen.timing.p50_ms:.3g} ms)",
    ]
    first = ", ".join(than_exact)
    best = max(point.top_1 for point in within)
    of = f"Of {len(within)} points" if len(within) > 1 else "The only point"
    return (
        f"{first[0].upper()}{first[1:]}. {of} within {100 * NOISE:g} points of the best within the limits"
        f" ({100 * best:.1f} %){', the one with the least memory times latency' if len(within) > 1 else ''}."
    )


def front(points: Sequence[Point], cost: Callable[[Point], float], worth: Callable[[Point], float]) -> list[Point]:
    """The Pareto front: points that no other equals or beats at both, cheapest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (cost(each), -worth(each))):
        if not found or worth(point) > worth(found[-1]):
            found.append(point)
    return found


def human(size: float) -> str:
    """A number of bytes, for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.4g} {unit}"


def _side(difference: float) -> str:
    return "above" if difference > 0 else "below"


def _times(ratio: float, better: str, worse: str) -> str:
    return f"{ratio:.1f} times {better}" if ratio >= 1 else f"{1 / ratio:.1f} times {worse}"
