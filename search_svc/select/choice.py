"""Chooses among the points: of those within the user's limits that dev photos can't tell from the best, the cheapest; for a small
gallery exact search.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_svc.select.points import Point

MIN_RECALL = 0.98
"""The default limit of recall@10. The best top-1 of hundreds of points is partly luck, the less so the higher the recall."""
NOISE = 0.002
"""Differences of dev top-1 up to this do not count."""
CHANCE = 0.05
"""Nor do differences that dev photos which are answered alike well would show with this probability or more."""
SMALL_BYTES = 32 * 2**20
"""If the Flat index takes no more than this, it is kept: a cheaper index would save nothing that anybody notices."""
_FLAT = "Flat"
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
    within = contenders(points, limits, items)
    exact = next((point for point in within if _is_small(point, items)), None)
    return exact or min(within, key=cost, default=None)


def contenders(points: Sequence[Point], limits: Limits, items: int) -> list[Point]:
    """Return those of the points within the limits that are as good as the best, as far as dev photos can tell."""
    eligible = [point for point in points if not exceeded(point, limits, items)]
    if not eligible:
        return []
    best = max(eligible, key=lambda point: point.top_1)
    return [point for point in eligible if _as_good(point, best)]


def _is_small(point: Point, items: int) -> bool:
    return point.setting.factory == _FLAT and point.bytes_per_photo * items <= SMALL_BYTES


def _as_good(point: Point, best: Point) -> bool:
    """Return whether a point is no worse than the best: by `NOISE` at most, by one photo, or by what chance may do."""
    if point.top_1 >= best.top_1 - NOISE - _ROUNDING:
        return True
    if not point.right or not best.right:
        return False
    pairs = list(zip(point.right, best.right, strict=True))
    lost, won = pairs.count(("0", "1")), pairs.count(("1", "0"))
    return lost - won <= 1 or by_chance(lost, won) >= CHANCE


def by_chance(lost: int, won: int) -> float:
    """Return how probable so unequal numbers of photos, that one of two is right on and the other isn't, are if both are as good.

    The exact sign test, two-sided (McNemar 1947).
    """
    photos = lost + won
    tail = sum(math.comb(photos, count) for count in range(min(lost, won) + 1))
    return float(min(1.0, 2 * tail / 2**photos))


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
    return f"{first[0].upper()}{first[1:]}. {_why(chosen, within, items)}."


def _why(chosen: Point, within: Sequence[Point], items: int) -> str:
    best = f"the best within the limits ({100 * max(point.top_1 for point in within):.1f} %)"
    if _is_small(chosen, items):
        size = human(chosen.bytes_per_photo * items)
        return f"Exact search stays, since all of it takes {size}, and dev photos cannot tell it from {best}"
    if len(within) == 1:
        return f"The only point that dev photos cannot tell from {best}"
    return (
        f"Of {len(within)} points that dev photos cannot tell from {best}, the one with the least memory times latency"
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
