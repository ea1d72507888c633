"""Paints a car: its surfaces, then what sits on them."""

from dataclasses import replace

import numpy as np

from demo.drawn_cars import faces, trim, wheels
from demo.drawn_cars.canvas import Canvas, Floats
from demo.drawn_cars.car import Car, Rgb
from demo.drawn_cars.outlines import BLOCK, place
from demo.drawn_cars.solid import Solid
from demo.drawn_cars.weather import Light, Paint

_ROOFS = {"black roof": np.array((26.0, 26, 30)), "white roof": np.array((234.0, 234, 232))}


def paint_car(canvas: Canvas, car: Car, solid: Solid, paint: Paint, light: Light) -> None:
    """Paint from back to front, so that what is nearer hides what is farther."""
    near = 1 if canvas.camera.eye[1] > 0 else -1
    for side in (-near, near):
        for axle in wheels.axles(car.body):
            wheels.tread(canvas, solid, axle, side)
    _underside(canvas, solid)
    _surface(canvas, solid.body_rings, paint, light)
    if "bed" in solid.body.trim:
        _bed(canvas, solid)
    if "scoop" in solid.body.trim:
        trim.scoop(canvas, solid)
    _side(canvas, solid, near, paint, light)
    _ends(canvas, car, solid)
    for axle in wheels.axles(car.body):
        wheels.wheel(canvas, solid, car.face, axle, side=near, bright=light.ambient)
    _surface(canvas, solid.cabin_rings, _roof_paint(car, paint), light)
    _cabin(canvas, solid, near, paint, light)


def _surface(canvas: Canvas, rings: Floats, paint: Paint, light: Light) -> None:
    """Paint what is visible of a loft of `rings` (rings, points, 3), farthest first."""
    after = np.roll(rings, -1, axis=1)
    quads = np.stack([rings[:-1], after[:-1], after[1:], rings[1:]], axis=2).reshape(-1, 4, 3)
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    centres = quads.mean(axis=1)
    seen = np.flatnonzero(((canvas.camera.eye - centres) * normals).sum(axis=1) > 0)
    order = seen[np.argsort(-canvas.camera.depth(centres[seen]), kind="stable")]
    colours = paint.lit(normals[order], light).astype(int).tolist()
    for corners, colour in zip(canvas.camera.project(quads[order]), colours, strict=True):
        canvas.flat(corners, tuple(colour))


def _underside(canvas: Canvas, solid: Solid) -> None:
    b = solid.body
    floor = place(BLOCK, -0.40 * b.length, 0.40 * b.length, -0.43 * b.width, 0.43 * b.width)
    for height in (0.75 * b.clearance, b.clearance + 0.12):
        canvas.polygon(np.column_stack([floor, np.full(len(floor), height)]), (14, 14, 16))


def _bed(canvas: Canvas, solid: Solid) -> None:
    b = solid.body
    along = np.linspace(b.rear_base + 0.005, 0.985, 8)
    left = np.column_stack([solid.x_at(along), np.full(8, 0.39 * b.width), solid.top(along) + 0.045])
    canvas.polygon(np.concatenate([left, left[::-1] * (1, -1, 1)]), (34, 34, 36))


def _side(canvas: Canvas, solid: Solid, side: int, paint: Paint, light: Light) -> None:
    if "stripe" in solid.body.trim:
        trim.stripe(canvas, solid, side, _contrast(paint))
    trim.side_lines(canvas, solid, side)
    wheels.wells(canvas, solid, side)
    if "cladding" in solid.body.trim:
        trim.cladding(canvas, solid, side, light.ambient)
    if "chrome" in solid.body.trim:
        trim.chrome(canvas, solid, side, light.ambient)


def _ends(canvas: Canvas, car: Car, solid: Solid) -> None:
    for end, parts in ((1, faces.nose), (-1, faces.tail)):
        if canvas.shows(np.array([end * solid.body.length / 2, 0, 0.7]), np.array([end, 0, 0])):
            if "dark bumpers" in car.body.trim:
                canvas.polygon(solid.on_end(place(BLOCK, -0.98, 0.98, 0.02, 0.36), end), (46, 46, 48))
            for outline, colour in parts(car.face):
                canvas.polygon(solid.on_end(outline, end), colour)


def _cabin(canvas: Canvas, solid: Solid, near: int, paint: Paint, light: Light) -> None:
    trim.windows(canvas, solid, near, light.sky)
    trim.mirror(canvas, solid, near, paint.colour)
    if "rails" in solid.body.trim:
        trim.rail(canvas, solid, near)


def _roof_paint(car: Car, paint: Paint) -> Paint:
    for name, colour in _ROOFS.items():
        if name in car.body.trim:
            return replace(paint, colour=colour)
    return paint


def _contrast(paint: Paint) -> Rgb:
    """Return the colour of stripes: white on dark paint, black on light."""
    return (28, 28, 30) if paint.colour.mean() > 120 else (222, 222, 220)
