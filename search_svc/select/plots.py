"""The plots: what accuracy and recall cost in latency and memory, with the Pareto fronts."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from search_svc.select.choice import front
from search_svc.select.points import Point
from search_svc.select.result import Result
from svckit.page import drawing
from svckit.page.drawing import PAGE, PAPER, Palette


@dataclass(frozen=True)
class _View:
    """A plot of one quality of the points against one cost."""

    worth: str
    of: Callable[[Point], float]
    """The quality of a point, drawn upwards."""
    cost: str
    at: Callable[[Point], float]
    """The cost of a point, drawn to the right."""

    @property
    def name(self) -> str:
        return f"{self.worth} against {self.cost}"


_P50, _BYTES = "p50, ms", "bytes a photo"
_VIEWS = (
    _View("dev top-1", lambda point: point.top_1, _P50, lambda point: point.timing.p50_ms),
    _View("dev top-1", lambda point: point.top_1, _BYTES, lambda point: point.bytes_per_photo),
    _View("recall@10", lambda point: point.recall_10, _P50, lambda point: point.timing.p50_ms),
    _View("recall@10", lambda point: point.recall_10, _BYTES, lambda point: point.bytes_per_photo),
)
_KINDS = {"HNSW": "^", "IVF": "s", "": "o"}
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")
_NUMBER = FuncFormatter(lambda value, _: f"{value:,g}")
_ROOM = 0.004
"""Space above and below the points, as a share."""


def svgs(result: Result) -> list[Markup]:
    """Return the plots as SVG. Each point shows its name under the mouse, and links to its row in the table."""
    return [_named(drawing.svg(partial(_draw, result, view, PAGE), view.name), result) for view in _VIEWS]


def png(result: Result) -> bytes:
    """Return the plots as PNG, with the chosen setting as title, for there is no page around them."""
    title = str(result.chosen.setting) if result.chosen else "no index meets the limits"
    return drawing.png([partial(_draw, result, view, PAPER) for view in _VIEWS], title)


def _draw(result: Result, view: _View, palette: Palette, axes: Axes) -> None:
    rest, best, chosen = palette.series[0], palette.series[1], palette.series[2]
    line = front(result.points, view.at, view.of)
    for kind, marker in _KINDS.items():
        axes.scatter([], [], 14, color=rest, marker=marker, label=kind or "neither")
        shown = [point for point in result.points if _kind(point) == kind]
        links = [_link(result.number(point)) for point in shown]
        at = ([view.at(point) for point in shown], [view.of(point) for point in shown])
        colours = [best if point in line else rest for point in shown]
        axes.scatter(*at, 14, c=colours, marker=marker, alpha=0.7, linewidths=0, urls=links)
    along = ([view.at(point) for point in line], [view.of(point) for point in line])
    axes.step(*along, where="post", color=best, lw=1, label="front")
    if result.chosen:
        at_chosen = (view.at(result.chosen), view.of(result.chosen))
        axes.plot(*at_chosen, "*", color=chosen, markersize=11, label="chosen", zorder=4, clip_on=False)
    axes.set(xscale="log", xlabel=view.cost, ylabel=view.worth, title=view.name, ylim=_range(result, view))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(_NUMBER)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.legend(fontsize=7, loc="lower right")


def _kind(point: Point) -> str:
    return next(kind for kind in _KINDS if kind in point.setting.factory)


def _range(result: Result, view: _View) -> tuple[float, float]:
    """Return the range of the vertical axis. It leaves out the lowest quarter, unless the choice is there."""
    values = sorted(view.of(point) for point in result.points)
    low = min(values[len(values) // 4], values[-1] - 0.02, *([view.of(result.chosen)] if result.chosen else []))
    return low - _ROOM, values[-1] + _ROOM


def _link(number: int) -> str:
    return f"#point-{number}"


def _named(svg: Markup, result: Result) -> Markup:
    """Add a title, which browsers show under the mouse, to each point of a plot."""

    def title(match: re.Match[str]) -> Any:
        point = result.points[int(match[1]) - 1]
        text = (
            f"{match[1]}: {point.setting}, top-1 {100 * point.top_1:.2f} %, recall@10 {100 * point.recall_10:.2f} %, "
        )
        text += f"p50 {point.timing.p50_ms:.3f} ms, {point.bytes_per_photo:,.0f} bytes"
        return f"{match[0]}<title>{escape(text)}</title>"

    return Markup(re.sub(r'<a href="#point-(\d+)"[^>]*>', title, svg))  # noqa: S704 - drawn by us, names escaped
