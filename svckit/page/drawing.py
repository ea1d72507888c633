"""Plots as SVG, which takes its colours and its font from the page that it is in."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Palette:
    ink: str
    faint: str
    series: tuple[str, str, str, str]


# Colours that stand for the page's until the drawing is done.
INK, FAINT = "#000001", "#000002"
SERIES = ("#000003", "#000004", "#000005", "#000006")
PAGE = Palette(INK, FAINT, SERIES)
PAPER = Palette("#1d2126", "#a3a9b1", ("#1f6fb4", "#c8590a", "#1b8058", "#8a4fa8"))
"""Colours of drawings that are files of their own: those of a light page."""
_OF_THE_PAGE = {INK: "--ink", FAINT: "--faint"} | {colour: f"--series-{i}" for i, colour in enumerate(SERIES, 1)}

_PLAIN = {"Date": None, "Creator": None, "Format": None, "Type": None}


def svg(draw: Callable[[Axes], Any], name: str) -> Markup:
    """Return the drawing that a function makes on one pair of axes, in the colours of `PAGE`. Its texts must be ours."""
    with mpl.rc_context(_style(PAGE)):
        figure = Figure(figsize=(4, 3), layout="constrained")
        draw(figure.add_subplot())
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True, metadata=_PLAIN)
    return Markup(_of_the_page(content.getvalue(), name))  # noqa: S704 - drawn by us, of numbers and names of ours


def png(draws: Sequence[Callable[[Axes], Any]], title: str) -> bytes:
    """Return one drawing of several, two by two below the title, in the colours of `PAPER`."""
    with mpl.rc_context(_style(PAPER)):
        figure = Figure(figsize=(10, 3.75 * ((len(draws) + 1) // 2)), layout="constrained")
        figure.suptitle(title)
        for place, draw in enumerate(draws, 1):
            draw(figure.add_subplot((len(draws) + 1) // 2, 2, place))
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=120, facecolor="white")
    return content.getvalue()


def _style(palette: Palette) -> dict[Any, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "vmmr",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": palette.faint,
        "axes.labelcolor": palette.ink,
        "axes.titlesize": 10,
        "axes.grid": True,
        "grid.color": palette.faint,
        "grid.alpha": 0.35,
        "grid.linewidth": 0.6,
        "text.color": palette.ink,
        "xtick.color": palette.faint,
        "ytick.color": palette.faint,
        "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink,
        "legend.frameon": False,
    }


def _of_the_page(svg: str, name: str) -> str:
    """Return the drawing without its XML head, its own style sheet and its size, in the page's colours."""
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', body)
    assert view, "matplotlib gives every drawing a viewBox"
    head = f'<svg {view[0]} role="img" aria-label="{name}" stroke-linejoin="round">'
    body = re.sub(r"<svg\b[^>]*>", head, body, count=1).replace("xlink:href", "href")
    for colour, variable in _OF_THE_PAGE.items():
        body = body.replace(colour, f"var({variable})")
    return body
