"""Paints what sits on a car's sides and cabin: gaps, handles, cladding, windows, mirrors, rails."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from demo.drawn_cars.canvas import Canvas, Colour, Floats
from demo.drawn_cars.car import Rgb
from demo.drawn_cars.outlines import BLOCK, place
from demo.drawn_cars.solid import Solid
from demo.drawn_cars.weather import rgb
from demo.drawn_cars.wheels import arch, axles, disc

_GLASS = (34, 41, 48)
_GAP = (0, 0, 0, 110)
_PLASTIC = np.array((44.0, 44, 46))
_CHROME = np.array((214.0, 216, 220))
_SILL = 0.08  # level of the doors' lower edge
_HANDLE = 0.84  # level of the door handles


def side_lines(canvas: Canvas, solid: Solid, side: int) -> None:
    for fraction, level, colour, width in _side_lines(solid):
        canvas.line(solid.on_side(fraction, level, side), colour, width)


def _side_lines(solid: Solid) -> Iterator[tuple[Floats | float, Floats | float, Colour, float]]:
    """Return the gaps as (place along the car, level, colour, width in metres)."""
    b = solid.body
    ends = [b.screen + (b.rear_base - b.screen) * pillar for pillar in b.pillars]
    hinge = b.screen + 0.015
    for door in (hinge, *ends):
        yield door, np.linspace(_SILL, 1, 10), _GAP, 0.012
    yield np.linspace(hinge, ends[-1], 12), _SILL, _GAP, 0.012
    crease = np.linspace(0.1, 0.93, 30)
    yield crease, 0.72, (0, 0, 0, 60), 0.014
    yield crease, 0.755, (255, 255, 255, 50), 0.014
    for door in ends:
        yield np.linspace(door - 0.045, door - 0.012, 4), _HANDLE, (20, 20, 20, 160), 0.03


def cladding(canvas: Canvas, solid: Solid, side: int, bright: float) -> None:
    """Paint unpainted plastic along the sill and around the wheels."""
    b = solid.body
    colour = rgb(_PLASTIC * bright)
    along = np.linspace(b.front_axle + 0.07, b.rear_axle - 0.07, 20)
    sill = [solid.on_side(along, 0.0, side), solid.on_side(along[::-1], 0.2, side)]
    canvas.polygon(np.concatenate(sill), colour)
    for axle in axles(b):
        canvas.polygon(np.concatenate([arch(solid, axle, side, 1.14), arch(solid, axle, side, 1.32)[::-1]]), colour)


def stripe(canvas: Canvas, solid: Solid, side: int, colour: Rgb) -> None:
    along = np.linspace(0.06, 0.95, 30)
    edges = [solid.on_side(along, 0.34, side), solid.on_side(along[::-1], 0.56, side)]
    canvas.polygon(np.concatenate(edges), colour)


def chrome(canvas: Canvas, solid: Solid, side: int, bright: float) -> None:
    """Paint a bar along the doors, and one along the belt."""
    b = solid.body
    for first, last, level, width in (
        (b.screen, b.rear_base, 0.99, 0.05),
        (b.front_axle + 0.08, b.rear_axle - 0.08, 0.25, 0.06),
    ):
        canvas.line(solid.on_side(np.linspace(first, last, 20), level, side), rgb(_CHROME * bright), width)


def scoop(canvas: Canvas, solid: Solid) -> None:
    """Paint an air intake on the bonnet."""
    b = solid.body
    flat = place(BLOCK, 0.42 * b.screen, 0.80 * b.screen, -0.16 * b.width, 0.16 * b.width)
    height = solid.top(flat[:, 0]) + 0.055
    canvas.polygon(np.column_stack([solid.x_at(flat[:, 0]), flat[:, 1], height]), (26, 26, 28))


def windows(canvas: Canvas, solid: Solid, side: int, sky: Rgb) -> None:
    for low, colour in ((0.0, _GLASS), (0.5, (*sky, 42))):  # the upper half mirrors the sky
        for end, sill in ((1, 0.04), (-1, 0.2)):
            if canvas.shows(*solid.screen(end)):
                canvas.polygon(solid.on_cabin_end(place(BLOCK, -0.93, 0.93, max(sill, low), 0.88), end), colour)
        for start, stop in _panes(solid):
            pane = place(BLOCK, start + 0.012, stop - 0.012, max(0.06, low), 0.86)
            canvas.polygon(solid.on_cabin_side(pane, side), colour)


def _panes(solid: Solid) -> list[tuple[float, float]]:
    """Return from where to where the side windows reach, along the cabin."""
    posts = (0.035, *solid.body.pillars, 0.965)
    panes = list(pairwise(posts))
    return panes[:1] if "panel sides" in solid.body.trim else panes


def mirror(canvas: Canvas, solid: Solid, side: int, colour: Floats) -> None:
    centre = solid.on_cabin_side(np.array([(0.06, 0.12)]), side)[0] + (0, 0.12 * side, 0)
    outline = centre + (disc(centre, 0.11) - centre) * (1, 1, 0.65)
    canvas.polygon(outline, rgb(0.75 * colour))


def rail(canvas: Canvas, solid: Solid, side: int) -> None:
    along = np.column_stack([np.linspace(0.1, 0.9, 12), np.ones(12)])
    above = np.array([0, -0.04 * side, 0.04])
    canvas.line(solid.on_cabin_side(along, side) + above, (60, 60, 62), 0.035)
