"""Chooses among the points: of the most accurate within the user's limits, the cheapest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_svc.select.points import Point

MIN_RECALL = 0.98
"""The default limit of recall@10. The best top-1 of hundreds of points is partly luck, the less so the higher the recall."""
NOISE = 0.002
"""Differences of dev top-1 up to this do not count."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Limits:
    """Limits of what an index may cost, and of how good it must be; None means no limit."""

    max_bytes: int | None = None
    """The size of all shard files together."""
    max_p99_ms: float | None = None
    min_recall: float = MIN_RECALL
    """The least recall@10, 0 to 1."""


@dataclass(frozen=True)
class Excess:
    """A limit that a point does not meet."""

    limit: str
    """The limit, as its flag is written."""
    by: str
    """What the point has, and by how much that is too much or too little."""
    ratio: float
    """How far the point is beyond the limit, as a part of the limit."""


def cost(point: Point) -> float:
    """Return memory times latency, so that halving either is worth the same."""
    return point.bytes_per_photo * point.timing.p50_ms


def choose(points: Sequence[Point], limits: Limits, items: int) -> Point | None:
    """Return the chosen point; None if no point meets the limits. `items` is the number of photos in the gallery."""
    return min(contenders(points, limits, items), key=cost, default=None)


def contenders(points: Sequence[Point], limits: Limits, items: int) -> list[Point]:
    """Return those of the points within the limits whose top-1 is within `NOISE` of the best."""
    eligible = [point for point in points if not exceeded(point, limits, items)]
    best = max((point.top_1 for point in eligible), default=0.0)
    return [point for point in eligible if point.top_1 >= best - NOISE - _ROUNDING]


def exceeded(point: Point, limits: Limits, items: int) -> list[Excess]:
    """Return the limits that a point does not meet."""
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
    """Say which point comes nearest to the limits, and which of them it does not meet, by how much."""

    def worst(point: Point) -> float:
        return max(excess.ratio for excess in exceeded(point, limits, items))

    nearest = min(points, key=worst)
    each = "; ".join(f"{excess.by} than {excess.limit}" for excess in exceeded(nearest, limits, items))
    return f"no index meets the limits; {nearest.setting} comes nearest, with {each}"


def reason(chosen: Point, points: Sequence[Point], exact: Point, limits: Limits, *, items: int, photos: int) -> str:
    """Say in two sentences why a point was chosen. `exact` is the flat index; `photos` is the number of dev photos asked for."""
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
    """Return the Pareto front, cheapest first: the points to which no other is both as cheap and as good."""
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (cost(each), -worth(each))):
        if not found or worth(point) > worth(found[-1]):
            found.append(point)
    return found


def human(size: float) -> str:
    """Return a number of bytes in words, such as `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.4g} {unit}"


def _side(difference: float) -> str:
    return "above" if difference > 0 else "below"


def _times(ratio: float, better: str, worse: str) -> str:
    return f"{ratio:.1f} times {better}" if ratio >= 1 else f"{1 / ratio:.1f} times {worse}"
