"""Paints wheels, and the wells that they stand in."""

from collections.abc import Iterator

import numpy as np

from demo.drawn_cars.canvas import Canvas, Floats
from demo.drawn_cars.car import Body, Face
from demo.drawn_cars.faces import DARK, Part
from demo.drawn_cars.outlines import RING, SPOKES
from demo.drawn_cars.solid import Solid
from demo.drawn_cars.weather import rgb

_FACE_AT = 0.955  # of half the car's width: the outer face
_RIM = 0.72  # of the tyre's radius
_WELL = 1.14  # of the tyre's radius
_ALLOY = (178, 181, 186)


def axles(body: Body) -> tuple[float, float]:
    return body.front_axle, body.rear_axle


def disc(centre: Floats, radius: float) -> Floats:
    """Return points (n, 3) of an upright circle that faces sideways."""
    return _upright(RING * radius, centre)


def tread(canvas: Canvas, solid: Solid, axle: float, side: int) -> None:
    """Paint the part of a wheel that shows under the body."""
    b = solid.body
    for inset in (0.26, 0.2, 0.14, 0.08, 0.02):
        y = side * (b.width / 2 * _FACE_AT - inset)
        canvas.polygon(disc(np.array([solid.x_at(axle), y, b.wheel]), b.wheel), (24, 24, 26))


def wheel(canvas: Canvas, solid: Solid, face: Face, axle: float, *, side: int, bright: float) -> None:
    """Paint a wheel's outer face."""
    b = solid.body
    centre = np.array([solid.x_at(axle), side * b.width / 2 * _FACE_AT, b.wheel])
    for part, rubber in ((1.0, (28, 28, 30)), (0.9, (40, 40, 42)), (_RIM, (18, 18, 20))):
        canvas.polygon(disc(centre, b.wheel * part), rubber)
    for outline, colour in _rim(face.rim, face.spokes):
        canvas.polygon(_upright(outline * b.wheel * _RIM, centre), rgb(np.array(colour) * bright))


def wells(canvas: Canvas, solid: Solid, side: int) -> None:
    """Paint the dark arches around the wheels."""
    for axle in axles(solid.body):
        canvas.polygon(arch(solid, axle, side, _WELL, -0.35), (12, 12, 14))


def arch(solid: Solid, axle: float, side: int, radius: float, below: float = 0.0) -> Floats:
    """An arc on the body's side around a wheel; `radius` in tyres', beginning and ending `below` the axle (radians)."""
    b = solid.body
    turn = np.linspace(below, np.pi - below, 30)
    fraction = axle - radius * b.wheel * np.cos(turn) / b.length
    level = solid.level_of(fraction, b.wheel + radius * b.wheel * np.sin(turn))
    return solid.on_side(fraction, np.clip(level, 0, 1), side)


def _upright(flat: Floats, centre: Floats) -> Floats:
    return np.asarray(np.insert(flat, 1, 0, axis=1) + centre)


def _rim(kind: str, spokes: int) -> Iterator[Part]:
    """A rim's parts, in the unit disc."""
    turns = 0.3 + np.arange(spokes) * 2 * np.pi / spokes
    if kind == "disc":
        yield 0.98 * RING, _ALLOY
        for turn in turns:
            yield 0.11 * RING + 0.66 * np.array([np.cos(turn), np.sin(turn)]), DARK
    else:
        yield np.concatenate([RING, RING[:1], 0.9 * RING[:1], 0.9 * RING[::-1]]), _ALLOY
        for turn in turns:
            rotation = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
            for spoke in SPOKES[kind]:
                yield spoke @ rotation, _ALLOY
    yield 0.2 * RING, (120, 122, 126)
