"""Shapes of grilles, lamps, badges and spokes, and how they are placed.

Outlines are (n, 2). Those of grilles, lamps and badges fill the unit square (a lamp's left edge is its inner one);
spokes point along the first axis of the unit disc.
"""

from types import MappingProxyType

import numpy as np

from demo.drawn_cars.canvas import Floats

_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)
RING = np.column_stack([np.cos(_TURN), np.sin(_TURN)])  # the unit circle
CIRCLE = 0.5 + 0.5 * RING
BLOCK = np.array([(0.0, 0), (1, 0), (1, 1), (0, 1)])
_STAR = np.pi / 2 + np.arange(10) * np.pi / 5

LAMPS = MappingProxyType(
    {
        "almond": np.array([(0, 0.3), (0.5, 0.0), (0.95, 0.25), (1, 0.8), (0.75, 1), (0.35, 0.75)]),
        "round": CIRCLE,
        "block": BLOCK,
        "slit": np.array([(0, 0.0), (0.6, 0.1), (1, 0.55), (1, 1), (0.5, 0.6), (0, 0.45)]),
        "drop": np.array([(0, 0.5), (0.2, 0.1), (0.6, 0), (1, 0.4), (1, 0.75), (0.6, 1), (0.2, 0.9)]),
        "wedge": np.array([(0, 0), (1, 0.35), (1, 1), (0.0, 0.5)]),
        "tall": np.array([(0.25, 0), (1, 0.1), (1, 1), (0, 1)]),
    }
)
GRILLES = MappingProxyType(
    {
        "trapezoid": np.array([(0.12, 0), (0.88, 0), (1, 1), (0, 1)]),
        "smile": np.array([(0.2, 0), (0.8, 0), (1, 0.6), (0.9, 1), (0.1, 1), (0, 0.6)]),
        "hexagon": np.array([(0.2, 0), (0.8, 0), (1, 0.55), (0.85, 1), (0.15, 1), (0, 0.55)]),
        "shield": np.array([(0.5, 0), (0.85, 0.3), (1, 1), (0, 1), (0.15, 0.3)]),
        "box": BLOCK,
        "oval": CIRCLE,
    }
)
BADGES = MappingProxyType(
    {
        "disc": CIRCLE,
        "diamond": np.array([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)]),
        "chevron": np.array([(0, 0), (0.5, 0.4), (1, 0), (1, 0.5), (0.5, 1), (0, 0.5)]),
        "shield": GRILLES["shield"],
        "bar": np.array([(0, 0.35), (1, 0.35), (1, 0.65), (0, 0.65)]),
        "star": 0.5 + 0.5 * np.column_stack([np.cos(_STAR), np.sin(_STAR)]) * np.tile([1.0, 0.42], 5)[:, None],
    }
)
SPOKES = MappingProxyType(
    {
        "star": (np.array([(0.0, -0.2), (0.95, -0.1), (0.95, 0.1), (0.0, 0.2)]),),
        "thin": (np.array([(0.0, -0.08), (0.95, -0.05), (0.95, 0.05), (0.0, 0.08)]),),
        "fork": (
            np.array([(0.1, -0.1), (0.95, -0.28), (0.95, -0.16), (0.2, 0.0)]),
            np.array([(0.1, 0.1), (0.95, 0.28), (0.95, 0.16), (0.2, 0.0)]),
        ),
        "blade": (np.array([(0.0, -0.12), (0.5, -0.3), (0.95, -0.2), (0.6, 0.0), (0.0, 0.14)]),),
    }
)


def place(outline: Floats, left: float, right: float, low: float, high: float) -> Floats:
    """Return a unit outline in a box, with points along its edges so that it can follow a curved surface."""
    after = np.roll(outline, -1, axis=0)
    dense = np.concatenate([outline + (after - outline) * part for part in (0, 0.25, 0.5, 0.75)], axis=1).reshape(-1, 2)
    return dense * (right - left, high - low) + (left, low)


def grown(outline: Floats, by: float) -> Floats:
    return 0.5 + (outline - 0.5) * by


def span(outline: Floats, level: float) -> tuple[float, float]:
    """Return where a horizontal line at `level` enters and leaves a convex outline."""
    after = np.roll(outline, -1, axis=0)
    low, high = np.minimum(outline[:, 1], after[:, 1]), np.maximum(outline[:, 1], after[:, 1])
    cut = (low <= level) & (level <= high) & (low < high)
    part = (level - outline[cut, 1]) / (after[cut, 1] - outline[cut, 1])
    across = outline[cut, 0] + part * (after[cut, 0] - outline[cut, 0])
    return float(across.min()), float(across.max())
