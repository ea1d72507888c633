"""The result of a sweep as text for a terminal."""

from collections.abc import Iterator

from search_svc.select.choice import human
from search_svc.select.points import Point
from search_svc.select.result import Result

_HEAD = ("", "index", "top-1", "top-5", "R@1", "R@10", "q/s", "q/s, 64", "p50 ms", "p99 ms", "bytes", "build s", "")


def table(result: Result) -> str:
    return "\n".join([*_head(result), "", *_points(result), "", *_foot(result)])


def cells(point: Point) -> tuple[str, ...]:
    """Return the figures of a point as text, one a column."""
    timing = point.timing
    shares = (f"{100 * share:.2f}" for share in (point.top_1, point.top_5, point.recall_1, point.recall_10))
    times = (f"{timing.qps_1:,.0f}", f"{timing.qps_64:,.0f}", f"{timing.p50_ms:.3f}", f"{timing.p99_ms:.3f}")
    return (*shares, *times, f"{point.bytes_per_photo:,.0f}", f"{point.build_s:.1f}")


def _head(result: Result) -> Iterator[str]:
    yield (
        f"{result.asked} dev photos against {result.photos} train photos of {result.labels} labels,"
        f" {result.dimension}-d, shards: {result.shards}"
    )
    if result.unknown:
        yield f"{result.unknown} more dev photos have a label that no train photo has, and were not asked for"
    yield "% top-1 and top-5 of dev photos; % recall against exact search; bytes a photo, of the shard files"
    yield "* chosen, + on the front of top-1 against memory times latency"


def _points(result: Result) -> Iterator[str]:
    names = [str(point.setting) for point in result.points]
    wide = max(map(len, [*names, _HEAD[1]]))
    yield _line(_HEAD, wide)
    front = result.front
    for name, point in zip(names, result.points, strict=True):
        mark = "*" if point == result.chosen else "+" if point in front else ""
        yield _line((mark, name, *cells(point), result.notes.get(point.setting, "")), wide)


def _line(row: tuple[str, ...], wide: int) -> str:
    mark, name, *figures, note = row
    return f"{mark:<1} {name:<{wide}}{''.join(f'{cell:>9}' for cell in figures)}  {note}".rstrip()


def _foot(result: Result) -> Iterator[str]:
    for name, why in result.skipped.items():
        yield f"skipped {name}: {why}"
    if result.left_out:
        kinds = dict.fromkeys(setting.factory for setting in result.left_out)
        yield f"no time for {len(result.left_out)} points, of {', '.join(kinds)}"
    if result.chosen:
        total = human(result.chosen.bytes_per_photo * result.photos)
        yield f"chosen: {result.chosen.setting} ({total} in all)"
        yield result.reason
