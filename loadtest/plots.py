"""Draw the plots of a result."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from loadtest.result import Distribution, Result, Step
from loadtest.table import LEAST, in_order, stage_names
from loadtest.targets import CALLS
from svckit.page import drawing
from svckit.page.drawing import FAINT, INK, SERIES

_NUMBER = FuncFormatter(lambda value, _: f"{value:,.10g}")
_SHARES = (0.5, 0.9, 0.99, 0.999, 0.9999)
_LINES = ("-", "--", ":")
_MOST_LINES = 8
_MOST_BARS = 12


def svgs(result: Result) -> list[Markup]:
    """Return the plots of a result; none if no call was answered."""
    steps = [step for step in in_order(result.steps) if step.latency]
    if not steps:
        return []
    slo = result.plan["slo_p99_ms"]
    open_steps, closed = ([step for step in steps if step.mode == mode] for mode in ("open", "closed"))
    views: list[tuple[str, Callable[[Axes], Any]]] = []
    for found, unit in ((open_steps, "calls/s offered"), (closed, "callers at once")):
        if len(found) > 1:
            views.append((f"latency against {unit}", partial(_latency, found, unit, slo)))
            views.append((f"what became of calls, against {unit}", partial(_fates, found, unit)))
    # The probe of a search for the knee is an overload: beside it nothing else could be seen.
    shown = open_steps if result.knee and open_steps else steps
    views.append(("latency by percentile", partial(_percentiles, _chosen(shown), slo)))
    views.append(("where the time went, medians", partial(_stages, shown)))
    return [drawing.svg(draw, name) for name, draw in views]


def _latency(steps: Sequence[Step], unit: str, slo: float | None, axes: Axes) -> None:
    for (name, of), colour in zip(_LATENCIES.items(), SERIES, strict=False):
        enough = [step for step in steps if step.latency and step.latency.count >= LEAST.get(name, 1)]
        ms = [of(step.latency) for step in enough if step.latency]
        axes.plot([step.load for step in enough], ms, "o-", ms=3, lw=1.2, color=colour, label=name)
    limited = [step for step in steps if step.generator.limited_by]
    if limited:
        at = [step.latency.p99_ms for step in limited if step.latency]
        axes.plot([step.load for step in limited], at, "x", ms=8, color=INK, label="generator a limit")
    _goal(axes, slo)
    axes.set(xlabel=unit, title=f"latency against {unit}")
    axes.set_xlim(left=0)
    _milliseconds(axes)
    axes.legend(fontsize=7)


_LATENCIES: dict[str, Callable[[Distribution], float]] = {
    "p50": lambda latency: latency.p50_ms,
    "p90": lambda latency: latency.p90_ms,
    "p99": lambda latency: latency.p99_ms,
}


def _milliseconds(axes: Axes) -> None:
    axes.set(yscale="log", ylabel="ms")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(_NUMBER)
    axes.yaxis.set_minor_locator(NullLocator())


def _goal(axes: Axes, slo: float | None) -> None:
    if slo is not None:
        axes.axhline(slo, color=FAINT, lw=1, ls="--", label=f"SLO {slo:g} ms")


def _fates(steps: Sequence[Step], unit: str, axes: Axes) -> None:
    loads = [step.load for step in steps]
    windows = [max(step.window_s, 1e-9) for step in steps]
    axes.plot(loads, [step.answered_per_s for step in steps], "o-", ms=3, lw=1.2, color=SERIES[2], label="answered")
    if any(step.goodput_per_s < step.answered_per_s for step in steps):
        axes.plot(
            loads, [step.goodput_per_s for step in steps], "o--", ms=3, lw=1.2, color=SERIES[0], label="within SLO"
        )
    for name, colour in (("refused", SERIES[1]), ("failed", SERIES[3])):
        counts = [getattr(step, name) for step in steps]
        if any(counts):
            rates = [count / window for count, window in zip(counts, windows, strict=True)]
            axes.plot(loads, rates, "o-", ms=3, lw=1.2, color=colour, label=name)
    if steps[0].mode == "open":
        axes.plot(loads, loads, color=FAINT, lw=1, ls="--", label="offered")
    axes.set(xlabel=unit, ylabel="calls/s", title="what became of calls")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)


def _percentiles(steps: Sequence[Step], slo: float | None, axes: Axes) -> None:
    """Draw latency by percentile as HdrHistogram's plots do: each nine has the same width."""
    for number, step in enumerate(steps):
        assert step.latency, "those without were left out"
        shares, ms = curve(step.latency)
        colour, line = SERIES[number % len(SERIES)], _LINES[number // len(SERIES) % len(_LINES)]
        axes.plot([_nines(share) for share in shares], ms, line, lw=1.2, color=colour, label=step.name)
    _goal(axes, slo)
    most = max(_nines(1 - 0.5 / step.latency.count) for step in steps if step.latency)
    shown = [share for share in _SHARES if _nines(share) <= most]
    axes.xaxis.set_major_locator(FixedLocator([_nines(share) for share in shown]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda nines, _: f"{100 * (1 - 10**-nines):.6g} %"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(title="latency by percentile of calls")
    _milliseconds(axes)
    axes.legend(fontsize=7)


def curve(latency: Distribution) -> tuple[list[float], list[float]]:
    """Return shares of calls, and the ms within which they were answered, no finer than the number of calls allows."""
    kept = HdrHistogram.decode(latency.hdr.encode())
    last = _nines(1 - 0.5 / latency.count)
    shares = [1 - 10**-nines for nines in np.linspace(0, last, 100)]
    return shares, [1e-3 * kept.get_value_at_percentile(100 * share) for share in shares]


def _nines(share: float) -> float:
    """Return how many nines a share has: 0.9 has 1, 0.99 has 2."""
    return -math.log10(1 - share)


def _stages(steps: Sequence[Step], axes: Axes) -> None:
    """Draw the medians of the stages in one bar for each step. They need not add up to the median of the whole call."""
    shown = _chosen(steps, _MOST_BARS)
    names = [name for name in stage_names(shown) if name not in CALLS]
    below = np.zeros(len(shown))
    for number, name in enumerate(names):
        medians = np.array([step.stages[name].p50_ms if name in step.stages else 0.0 for step in shown])
        colour, alpha = SERIES[number % len(SERIES)], 1.0 if number < len(SERIES) else 0.55
        axes.barh(range(len(shown)), medians, left=below, color=colour, alpha=alpha, label=name, height=0.7)
        below += medians
    axes.set_yticks(range(len(shown)), [step.name for step in shown])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="ms", title="where the time went, medians")
    axes.legend(fontsize=7)


def _chosen(steps: Sequence[Step], most: int = _MOST_LINES) -> list[Step]:
    """Return at most `most` of the steps, evenly spread, with the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[place] for place in np.linspace(0, len(steps) - 1, most).round().astype(int).tolist()]
