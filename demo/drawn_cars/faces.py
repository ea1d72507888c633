"""Noses and tails, as flat parts.

A part is an outline (n, 2) of (across from -1 to 1, level from 0 to 1) and its colour; parts come in the order in which
they are painted.
"""

from collections.abc import Iterator

import numpy as np

from demo.drawn_cars.canvas import Colour, Floats
from demo.drawn_cars.car import Face
from demo.drawn_cars.outlines import BADGES, BLOCK, CIRCLE, GRILLES, LAMPS, grown, place, span

Part = tuple[Floats, Colour]

CHROME = (196, 198, 202)
DARK = (22, 22, 24)
PLATE = (228, 228, 222)
_OUTER = 0.965  # where lamps end


def nose(face: Face) -> Iterator[Part]:
    yield place(GRILLES["smile"], -0.66, 0.66, 0.05, 0.25), DARK
    yield place(BLOCK, -0.27, 0.27, 0.10, 0.27), PLATE
    yield from _grille(face)
    for side in (-1, 1):
        yield from _lamp(face, side)
        yield place(BLOCK, side * 0.50, side * 0.62, 0.12, 0.20), (235, 230, 205)


def tail(face: Face) -> Iterator[Part]:
    yield place(BLOCK, -0.8, 0.8, 0.04, 0.16), (30, 30, 32)
    yield place(BLOCK, -0.29, 0.29, 0.42, 0.62), (40, 40, 42)
    yield place(BLOCK, -0.26, 0.26, 0.44, 0.60), PLATE
    if face.tail_bar:
        top = face.tail_top - face.tail_height * 0.35
        yield place(BLOCK, -0.8, 0.8, top - face.tail_height * 0.25, top), (150, 20, 24)
    for side in (-1, 1):
        yield from _tail_lamp(face, side)
    yield place(BADGES[face.badge], -0.06, 0.06, 0.78, 0.88), (220, 222, 225)


def _grille(face: Face) -> Iterator[Part]:
    outline = GRILLES[face.grille]
    wide, top, low = face.grille_width, face.grille_top, face.grille_top - face.grille_height
    yield place(outline, -wide - 0.02, wide + 0.02, low - 0.026, top + 0.026), CHROME
    yield place(outline, -wide, wide, low, top), DARK
    for bar in _bars(face.pattern, face.bars, outline):
        yield place(bar, -wide, wide, low, top), CHROME
    middle = (low + top) / 2
    yield place(BADGES[face.badge], -0.075, 0.075, middle - 0.06, middle + 0.06), (225, 227, 230)


def _bars(pattern: str, count: int, outline: Floats) -> Iterator[Floats]:
    """Yield the bars that fill a grille, in its unit square; each bar is as long as the opening is there."""
    places = (np.arange(count) + 0.5) / max(count, 1)
    if pattern == "rows":
        for at in places:
            left, right = span(outline, at)
            yield place(BLOCK, left, right, at - 0.14 / count, at + 0.14 / count)
    elif pattern == "columns":
        for at in places:
            low, high = span(outline[:, ::-1], at)
            yield place(BLOCK, at - 0.17 / count, at + 0.17 / count, low, high)
    elif pattern == "twin":
        yield place(BLOCK, 0.42, 0.58, -0.06, 1.06)
    elif pattern == "wing":
        for tip in (0.0, 1.0):
            yield np.array([(0.5, 0.25), (tip, 0.75), (tip, 0.9), (0.5, 0.45)])


def _lamp(face: Face, side: int) -> Iterator[Part]:
    shape, width, height, top = LAMPS[face.lamp], face.lamp_width, face.lamp_height, face.lamp_top
    box = (side * (_OUTER - width), side * _OUTER, top - height, top)
    yield place(grown(shape, 1.12), *box), (70, 72, 76)
    yield place(shape, *box), (214, 222, 230)
    radius = min(height * 0.36, 0.07)
    for bulb in face.bulbs:
        for part, colour in ((1.0, (120, 128, 138)), (0.6, (250, 250, 244))):
            at, level, reach = side * (_OUTER - width * bulb), top - height / 2, radius * part
            yield place(CIRCLE, at - reach, at + reach, level - reach, level + reach), colour


def _tail_lamp(face: Face, side: int) -> Iterator[Part]:
    shape, top = LAMPS[face.tail_lamp], face.tail_top
    box = (side * (_OUTER - face.tail_width), side * _OUTER, top - face.tail_height, top)
    for part, colour in ((1.08, (60, 12, 14)), (1.0, (176, 22, 28)), (0.55, (228, 60, 52))):
        yield place(grown(shape, part), *box), colour
