"""The plots of the report, as SVG that takes its colours and its font from the page around it.

Only numbers and our own names are drawn, no text from outside.
"""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from search_svc.evaluation.report.confidence import Confidence, Reliability
from search_svc.evaluation.report.fusing import Fused
from search_svc.evaluation.report.unknown import Detection, Distribution
from search_svc.fitting.calibration_metrics import BINS
from svckit.page.drawing import FAINT, INK, SERIES, svg

_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1)))


def reliability(level: Confidence) -> Markup:
    """Draw how often answers of about one confidence are right. On the diagonal they are right as often as they say."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
        _bars(axes, level.calibrated or level.shares, SERIES[0] if level.calibrated else SERIES[1])
        _means(axes, level.shares, "o", SERIES[1], "shares of the vote")
        if level.calibrated:
            _means(axes, level.calibrated, "s", SERIES[0], "calibrated")
        _percentages(axes, "confidence", "right")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), title=level.level)
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=8)

    return svg(draw, f"Reliability diagram of the {level.level}")


def risk_coverage(levels: Sequence[Confidence]) -> Markup:
    """Draw the share of wrong answers among the most confident ones, against the share of photos that are answered."""

    def draw(axes: Axes) -> None:
        for number, level in enumerate(levels):
            coverage, risk = [point.coverage for point in level.curve], [point.risk for point in level.curve]
            axes.plot(coverage, risk, label=level.level, **_line(number))
        _percentages(axes, "photos answered", "of them wrong")
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.legend(loc="upper left")

    return svg(draw, "Risk-coverage curves")


def roc(kind: Detection) -> Markup:
    """Draw the share of known photos that a threshold accepts, against the share of unknown ones that it accepts."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
        for number, detector in enumerate(kind.detectors):
            label = f"{detector.score} ({100 * detector.auroc.value:.1f})"
            axes.plot([at.fpr for at in detector.roc], [at.tpr for at in detector.roc], label=label, **_line(number))
        _percentages(axes, "unknown accepted", "known accepted")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), title=kind.kind)
        axes.legend(loc="lower right", title="score (AUROC, %)", fontsize=8)

    return svg(draw, f"ROC against {kind.kind}")


def distribution(scores: Distribution) -> Markup:
    """Draw the distribution of a score for known and for unknown photos, and its threshold."""

    def draw(axes: Axes) -> None:
        for number, (kind, shares) in enumerate(scores.columns.items()):
            colour = SERIES[number]
            axes.stairs(shares, scores.edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(shares, scores.edges, color=colour, label=kind)
        if scores.threshold is not None:
            axes.axvline(scores.threshold, color=INK, linestyle="--", linewidth=1, label="threshold")
        highest = max(share for shares in scores.columns.values() for share in shares)
        # The room above the curves is for the legend.
        axes.set(xlabel=f"score: {scores.score}", ylabel="photos", ylim=(0, 1.4 * highest))
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.legend(loc="upper right", fontsize=8)

    return svg(draw, "Distribution of the score")


def fused(groups: Sequence[Fused]) -> Markup:
    """Draw how often groups of photos are right as one query, beside how often the same photos are right one by one."""

    def draw(axes: Axes) -> None:
        shown = [each for each in groups if each.level == "label"]
        places = list(range(len(shown)))
        values = [each.fused.value for each in shown]
        spread = [
            [each.fused.value - each.fused.low for each in shown],
            [each.fused.high - each.fused.value for each in shown],
        ]
        axes.errorbar(places, values, spread, fmt="o", color=SERIES[0], capsize=4, label="together")
        axes.plot(places, [each.single for each in shown], "s", color=SERIES[1], label="one by one")
        axes.set_xticks(places, [f"{each.size} photos" for each in shown])
        axes.set(xlim=(-0.5, len(shown) - 0.5), ylabel="label right")
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.margins(y=0.15)
        axes.legend()

    return svg(draw, "Several photos of one car against one")


def _line(number: int) -> dict[str, Any]:
    """Return the style of the n-th curve. Dashes differ too, for readers who cannot tell the colours apart."""
    return {"color": SERIES[number % len(SERIES)], "linestyle": _DASHES[number % len(_DASHES)]}


def _bars(axes: Axes, found: Reliability, colour: str) -> None:
    lows, rights = [each.low for each in found.bins], [each.right for each in found.bins]
    axes.bar(lows, rights, 1 / BINS, align="edge", color=colour, alpha=0.35, edgecolor=colour, linewidth=0.8)


def _means(axes: Axes, found: Reliability, marker: str, colour: str, name: str) -> None:
    """Draw a mark for each bin at the means of its photos; the more photos, the larger the mark."""
    across, up = [each.confidence for each in found.bins], [each.right for each in found.bins]
    photos = sum(each.photos for each in found.bins)
    areas = [12 + 80 * each.photos / photos for each in found.bins]
    axes.scatter(
        across, up, areas, c=colour, marker=marker, clip_on=False, label=name, alpha=0.85, linewidths=0, zorder=3
    )


def _percentages(axes: Axes, across: str, up: str) -> None:
    axes.set(xlabel=across, ylabel=up)
    axes.xaxis.set_major_formatter(_PERCENT)
    axes.yaxis.set_major_formatter(_PERCENT)
