"""The surface of a car: two lofts, body and cabin, and the places on them.

x runs forward, y to the car's left, z up, in metres; the origin is on the ground below the car's middle. A place along
the car is given as a fraction of its length from the nose, a place up its side as a level from sill (0) to shoulder (1),
or on the cabin from belt (0) to roof (1).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from demo.drawn_cars.canvas import Floats
from demo.drawn_cars.car import Body

_POINTS = 48  # around a ring
_GRID = np.linspace(0, 1, 81)  # places along the car where its upper and lower lines are known

# The body's cross-section: width, and reach of nose and tail, by level.
_LEVELS = np.array([0.0, 0.06, 0.12, 0.20, 0.30, 0.40, 0.50, 0.60, 0.68, 0.74, 0.82, 0.90, 0.95, 0.98, 1.0])
_WIDTHS = np.array([0.92, 0.95, 0.965, 0.975, 0.982, 0.987, 0.991, 0.996, 1.0, 0.995, 0.98, 0.962, 0.945, 0.93, 0.90])
_REACH = np.array([0.96, 0.98, 0.993, 0.999, 1.0, 1.0, 0.998, 0.995, 0.991, 0.987, 0.981, 0.973, 0.965, 0.955, 0.935])
_CLOSING = (0.80, 0.60, 0.40, 0.20, 0.0)  # rings that close the top, in widths of the shoulder
_CROWN = 0.05  # rise of the top from shoulder to middle, in metres
_CABIN_LEVELS = (0.0, 0.3, 0.6, 0.85, 1.0)
_ROOF = ((0.93, 0.025), (0.7, 0.04), (0.35, 0.05), (0.05, 0.05))  # rings that close it: width, rise in metres
_CABIN_CORNERS = 9  # exponent of the superellipse that is its plan


@dataclass(frozen=True)
class Solid:
    """A body in space."""

    body: Body

    def x_at(self, fraction: Floats | float) -> Floats:
        return np.asarray((0.5 - np.asarray(fraction)) * self.body.length)

    # --- the body -----------------------------------------------------------------------------------------------------

    @cached_property
    def body_rings(self) -> Floats:
        """Rings of the surface, (rings, points, 3), from the sill to the middle of the top."""
        half = np.array([self.body.length, self.body.width]) / 2
        plan = _superellipse(self.body.corners, half[0] / half[1]) * half
        rings = [
            self._lift(plan * (reach, width), level)
            for level, width, reach in zip(_LEVELS, _WIDTHS, _REACH, strict=True)
        ]
        shoulder = rings[-1]
        crown = _CROWN * np.maximum(0, 1 - np.abs(shoulder[:, 0] / half[0]) ** 6)
        return np.stack([*rings, *(shoulder * (1, part, 1) + _up(crown * (1 - part**2)) for part in _CLOSING)])

    def on_side(self, fraction: Floats | float, level: Floats | float, side: int) -> Floats:
        """Return points (n, 3) on the left (+1) or right (-1) side."""
        fraction, level = np.broadcast_arrays(fraction, level)
        x = self.x_at(fraction)
        reach = self.body.length / 2 * np.interp(level, _LEVELS, _REACH)
        width = self.body.width / 2 * np.interp(level, _LEVELS, _WIDTHS)
        return self._lift(np.column_stack([x, side * width * _other(x / reach, self.body.corners)]), level)

    def on_end(self, flat: Floats, end: int) -> Floats:
        """Return points (n, 3) on the nose (+1) or tail (-1), for (across from right -1 to left 1, level)."""
        across, level = np.clip(flat, (-0.985, 0.02), (0.985, 0.97)).T
        reach = self.body.length / 2 * np.interp(level, _LEVELS, _REACH)
        width = self.body.width / 2 * np.interp(level, _LEVELS, _WIDTHS)
        return self._lift(np.column_stack([end * reach * _other(across, self.body.corners), across * width]), level)

    def level_of(self, fraction: Floats, height: Floats) -> Floats:
        """Return the level at a height in metres."""
        low = self._bottom(fraction)
        return (height - low) / (self.top(fraction) - low)

    def top(self, fraction: Floats) -> Floats:
        """Return the height of the shoulder: bonnet, belt and boot."""
        return np.interp(fraction, _GRID, self._upper)

    def _bottom(self, fraction: Floats) -> Floats:
        return np.interp(fraction, _GRID, self._lower)

    def _lift(self, plan: Floats, level: Floats | float) -> Floats:
        """Return points (n, 3) at a level above (n, 2) places on the ground."""
        fraction = 0.5 - plan[:, 0] / self.body.length
        low = self._bottom(fraction)
        return np.column_stack([plan, low + level * (self.top(fraction) - low)])

    @cached_property
    def _upper(self) -> Floats:
        b = self.body
        bonnet = b.nose + 0.62 * (b.cowl - b.nose)
        heights = (b.nose, bonnet, b.cowl, b.belt, b.tail)
        return _smooth(np.interp(_GRID, (0, b.screen / 2, b.screen, b.rear_base, 1), heights))

    @cached_property
    def _lower(self) -> Floats:
        rise = np.interp(_GRID, (0, 0.08, 0.15, 0.85, 0.92, 1), (0.07, 0.02, 0, 0, 0.05, 0.12))
        return _smooth(self.body.clearance + rise)

    # --- the cabin ----------------------------------------------------------------------------------------------------

    @cached_property
    def cabin_rings(self) -> Floats:
        """Rings of the surface, (rings, points, 3), from the belt to the middle of the roof."""
        b = self.body
        plan = _superellipse(_CABIN_CORNERS, (b.rear_base - b.screen) * b.length / b.width)
        rings = [self._cabin_ring(plan, level) for level in _CABIN_LEVELS]
        edge = rings[-1]
        middle = edge.mean(axis=0) * (1, 1, 0)
        roof = [(edge - middle) * (0.5 + part / 2, part, 1) + middle + (0, 0, rise) for part, rise in _ROOF]
        return np.stack([*rings, *roof])

    def on_cabin_side(self, flat: Floats, side: int) -> Floats:
        """Return points (n, 3) for (along, level); along is 0 at the windscreen, 1 at the rear window, at that level."""
        along, level = flat.T
        front, rear, width = self._cabin_reach(level)
        x = front + (rear - front) * along
        return self._cabin_lift(x, side * width * _other(2 * along - 1, _CABIN_CORNERS), level)

    def on_cabin_end(self, flat: Floats, end: int) -> Floats:
        """Return points (n, 3) on the windscreen (+1) or rear window (-1), for (across from right -1 to left 1, level)."""
        across, level = flat.T
        front, rear, width = self._cabin_reach(level)
        x = (front + rear) / 2 + end * (front - rear) / 2 * _other(across, _CABIN_CORNERS)
        return self._cabin_lift(x, across * width, level)

    def screen(self, end: int) -> tuple[Floats, Floats]:
        """Return the middle of the windscreen (+1) or rear window (-1), and the unit vector that points out of it."""
        low, middle, high = self.on_cabin_end(np.array([(0, 0.1), (0, 0.5), (0, 0.9)]), end)
        up = high - low
        return middle, end * np.array([up[2], 0, -up[0]]) / np.linalg.norm(up)

    def _cabin_ring(self, plan: Floats, level: float) -> Floats:
        front, rear, width = self._cabin_reach(level)
        return self._cabin_lift((front + rear) / 2 + plan[:, 0] * (front - rear) / 2, plan[:, 1] * width, level)

    def _cabin_reach(self, level: Floats | float) -> tuple[Floats, Floats, Floats]:
        """Return where windscreen and rear window are (x), and half the width."""
        b = self.body
        level = np.asarray(level)
        bow = 0.03 * np.sin(np.pi * level)
        front = self.x_at(b.screen + (b.roof_front - b.screen) * level) + bow
        rear = self.x_at(b.rear_base + (b.roof_rear - b.rear_base) * level) - bow
        return front, rear, 0.465 * b.width * (1 - (1 - b.taper) * level**1.3)

    def _cabin_lift(self, x: Floats, y: Floats, level: Floats | float) -> Floats:
        b = self.body
        fraction = 0.5 - x / b.length
        base = self.top(np.clip(fraction, b.screen, b.rear_base)) - 0.02
        off_middle = (2 * fraction - b.roof_front - b.roof_rear) / (b.roof_rear - b.roof_front)
        roof = b.height - 0.05 - np.minimum(0.05 * off_middle**2, 0.05)
        return np.column_stack([x, y, base + level * (roof - base)])


def _up(height: Floats) -> Floats:
    return np.column_stack([np.zeros((len(height), 2)), height])


def _smooth(line: Floats) -> Floats:
    kernel = np.array([1, 3, 4, 3, 1]) / 12
    return np.convolve(np.pad(line, 2, mode="edge"), kernel, mode="valid")


def _other(part: Floats, exponent: float) -> Floats:
    """Return the other coordinate (not negative) of points on the unit superellipse."""
    return np.asarray((1 - np.minimum(np.abs(part), 1) ** exponent) ** (1 / exponent))


def _superellipse(exponent: float, aspect: float) -> Floats:
    """Return points (n, 2) of the unit superellipse, counter-clockwise, evenly spaced once x is stretched by `aspect`."""
    turn = np.linspace(0, 2 * np.pi, 2001)
    circle = np.column_stack([np.cos(turn), np.sin(turn)])
    dense = np.sign(circle) * np.abs(circle) ** (2 / exponent)
    steps = np.linalg.norm(np.diff(dense, axis=0) * (aspect, 1), axis=1)
    walked = np.concatenate([[0], np.cumsum(steps)])
    at = np.linspace(0, walked[-1], _POINTS, endpoint=False)
    return np.column_stack([np.interp(at, walked, dense[:, axis]) for axis in (0, 1)])
