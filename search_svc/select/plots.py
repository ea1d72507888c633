"""The points drawn: what accuracy and recall cost in latency and memory, and the fronts on which nothing is better."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from search_svc import drawing
from search_svc.drawing import PAGE, PAPER, Palette
from search_svc.select.choice import front
from search_svc.select.points import Point
from search_svc.select.result import Result


@dataclass(frozen=True)
class _View:
    """A plot: what is drawn upwards, and what it costs."""

    worth: str
    of: Callable[[Point], float]
    cost: str
    at: Callable[[Point], float]

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


def svgs(result: Result) -> list[Markup]:
    """Each point names itself where a mouse rests on it, and leads to its row."""
    return [_named(drawing.svg(partial(_draw, result, view, PAGE), view.name), result) for view in _VIEWS]


def png(result: Result) -> bytes:
    return drawing.png([partial(_draw, result, view, PAPER) for view in _VIEWS])


def _draw(result: Result, view: _View, palette: Palette, axes: Axes) -> None:
    rest, best, chosen = palette.series[0], palette.series[1], palette.series[2]
    line = front(result.points, view.at, view.of)
    for kind, marker in _KINDS.items():
        shown = [point for point in result.points if _kind(point) == kind]
        links = [_link(result.number(point)) for point in shown]
        at = ([view.at(point) for point in shown], [view.of(point) for point in shown])
        colours = [best if point in line else rest for point in shown]
        label = {"": "neither"}.get(kind, kind)
        axes.scatter(*at, 14, c=colours, marker=marker, alpha=0.7, linewidths=0, label=label, urls=links)
    axes.step([view.at(point) for point in line], [view.of(point) for point in line], where="post", color=best, lw=1)
    if result.chosen:
        at_chosen = (view.at(result.chosen), view.of(result.chosen))
        axes.plot(*at_chosen, "*", color=chosen, markersize=13, label="chosen", zorder=4)
        axes.annotate(
            str(result.chosen.setting), at_chosen, (0, -14), textcoords="offset points", fontsize=7, ha="center"
        )
    axes.set(xscale="log", xlabel=view.cost, ylabel=view.worth, title=view.name, ylim=_range(result.points, view))
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.xaxis.set_major_formatter(_NUMBER)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=7, loc="lower right")


def _kind(point: Point) -> str:
    return next(kind for kind in _KINDS if kind in point.setting.factory)


def _range(points: Sequence[Point], view: _View) -> tuple[float, float]:
    """From below the middle, so that the best are told apart; the table has the rest."""
    values = sorted(view.of(point) for point in points)
    low = min(values[len(values) // 4], values[-1] - 0.02)
    return low - _ROOM, values[-1] + _ROOM


def _link(number: int) -> str:
    return f"#point-{number}"


def _named(svg: Markup, result: Result) -> Markup:
    def title(match: re.Match[str]) -> Any:
        point = result.points[int(match[1]) - 1]
        text = (
            f"{match[1]}: {point.setting}, top-1 {100 * point.top_1:.2f} %, recall@10 {100 * point.recall_10:.2f} %, "
        )
        text += f"p50 {point.timing.p50_ms:.3f} ms, {point.bytes_per_photo:,.0f} bytes"
        return f"{match[0]}<title>{escape(text)}</title>"

    return Markup(re.sub(r'<a href="#point-(\d+)"[^>]*>', title, svg))  # noqa: S704 - drawn by us, names escaped
