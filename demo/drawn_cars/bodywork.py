"""Paints a car: its surfaces, then what sits on them."""

import numpy as np

from demo.drawn_cars import faces, trim, wheels
from demo.drawn_cars.canvas import Canvas, Floats
from demo.drawn_cars.catalogue import Car
from demo.drawn_cars.outlines import BLOCK, place
from demo.drawn_cars.solid import Solid
from demo.drawn_cars.weather import Light, Paint


def paint_car(canvas: Canvas, car: Car, solid: Solid, paint: Paint, light: Light) -> None:
    """From back to front: what is nearer hides what is farther."""
    near = 1 if canvas.camera.eye[1] > 0 else -1
    for side in (-near, near):
        for axle in wheels.axles(car.body):
            wheels.tread(canvas, solid, axle, side)
    _underside(canvas, solid)
    _surface(canvas, solid.body_rings, paint, light)
    if car.body.bed:
        _bed(canvas, solid)
    _side(canvas, car, solid, near, light)
    _ends(canvas, car, solid)
    for axle in wheels.axles(car.body):
        wheels.wheel(canvas, solid, car.face, axle, side=near, bright=light.ambient)
    _surface(canvas, solid.cabin_rings, paint, light)
    _cabin(canvas, solid, near, paint, light)


def _surface(canvas: Canvas, rings: Floats, paint: Paint, light: Light) -> None:
    """Paints what is visible of a loft of `rings` (rings, points, 3), farthest first."""
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


def _side(canvas: Canvas, car: Car, solid: Solid, side: int, light: Light) -> None:
    trim.side_lines(canvas, solid, side)
    wheels.wells(canvas, solid, side)
    if car.body.cladding:
        trim.cladding(canvas, solid, side, light.ambient)


def _ends(canvas: Canvas, car: Car, solid: Solid) -> None:
    for end, parts in ((1, faces.nose), (-1, faces.tail)):
        if canvas.shows(np.array([end * solid.body.length / 2, 0, 0.7]), np.array([end, 0, 0])):
            for outline, colour in parts(car.face):
                canvas.polygon(solid.on_end(outline, end), colour)


def _cabin(canvas: Canvas, solid: Solid, near: int, paint: Paint, light: Light) -> None:
    trim.windows(canvas, solid, near, light.sky)
    trim.mirror(canvas, solid, near, paint.colour)
    if solid.body.rails:
        trim.rail(canvas, solid, near)
