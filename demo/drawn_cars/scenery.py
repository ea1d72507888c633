"""Paints the place where a photo is taken: sky, ground, what stands behind the car, and the car's shadow."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

from demo.drawn_cars.canvas import Camera, Canvas, Colour, Floats
from demo.drawn_cars.car import Rgb
from demo.drawn_cars.weather import WEATHERS, Light, Weather

Place = Callable[["_Site"], None]

_OUT_OF_FOCUS = 1.8  # pixels of a picture half as large
_FACADES = ((178, 120, 96), (190, 180, 160), (150, 154, 160), (206, 200, 190), (128, 110, 100))


def backdrop(size: tuple[int, int], camera: Camera, weather: Weather, rng: np.random.Generator) -> Image.Image:
    """Return an empty place of the size and under the sky asked for, as `camera` sees it: a little out of focus."""
    small, view = (size[0] // 2, size[1] // 2), camera.scaled(0.5)
    image = _gradient(small, weather.zenith, weather.horizon, view.centre[1])
    outdoors = (_country, _street, _car_park)
    place: Place = _garage if weather is WEATHERS["indoors"] else outdoors[rng.integers(len(outdoors))]
    place(_Site(image, view, weather, rng))
    return image.filter(ImageFilter.GaussianBlur(_OUT_OF_FOCUS)).resize(size, Image.Resampling.BILINEAR)


def cast_shadow(image: Image.Image, camera: Camera, footprint: tuple[float, float], light: Light, depth: float) -> None:
    """Darken the ground under a car of `footprint` (length, width) and where it hides the sun."""
    x, y = np.array(footprint) * (0.48, 0.5)
    below = np.array([(x, y, 0), (x, -y, 0), (-x, -y, 0), (-x, y, 0)])
    away = np.append(-light.sun[:2] / light.sun[2] * light.direct, 0)
    mask = Image.new("L", (image.width // 4, image.height // 4))
    pen = ImageDraw.Draw(mask)
    for corners, part in ((below + away, 0.55), (below, 1.0)):
        pen.polygon((camera.project(corners) / 4).ravel().tolist(), fill=int(255 * depth * part))
    soft = mask.filter(ImageFilter.GaussianBlur(2)).resize(image.size, Image.Resampling.BILINEAR)
    image.paste((10, 10, 14), (0, 0, *image.size), soft)


class _Site:
    """A place in the making. Pixels: `horizon` is the row of what is far away, `width` the picture's."""

    def __init__(self, image: Image.Image, camera: Camera, weather: Weather, rng: np.random.Generator) -> None:
        self.image = image
        self.pen = ImageDraw.Draw(image)
        self.canvas = Canvas(image, camera)
        self.tint = weather.tint
        self.rng = rng
        self.horizon = max(camera.centre[1], 6.0)  # a camera that is near, and higher than the car, sees none
        self.width = image.width

    def box(self, left: float, top: float, right: float, bottom: float, colour: ArrayLike) -> None:
        self.pen.rectangle((left, top, right, bottom), fill=self.tint(colour))

    def ground(self, near: ArrayLike, far: ArrayLike) -> None:
        """Paint grainy ground up to the horizon."""
        row = round(self.horizon)
        size = (self.width, self.image.height - row)
        grain = self.rng.integers(0, 32, (size[1] // 2 + 1, size[0] // 3), dtype=np.uint8)
        self.image.paste(_gradient(size, self.tint(far), self.tint(near), size[1] / 2), (0, row))
        self.image.paste((0, 0, 0), (0, row), Image.fromarray(grain).resize(size, Image.Resampling.BILINEAR))

    def stripe(self, start: tuple[float, float], stop: tuple[float, float], width: float, colour: Rgb) -> None:
        """Paint a line on the ground, in metres, as far as it lies before the camera."""
        along = np.array(stop) - start
        across = np.array([-along[1], along[0]]) / np.linalg.norm(along) * width / 2
        middle = np.linspace(start, stop, 40)
        edges = np.pad(np.stack([middle - across, middle + across]), [(0, 0), (0, 0), (0, 1)])  # (2, 40, 3)
        edges = edges[:, (self.canvas.camera.depth(edges) > 0.8).all(axis=0)]
        if edges.shape[1] > 1:
            self.canvas.polygon(np.concatenate([edges[0], edges[1, ::-1]]), self.tint(colour))


# --- places -----------------------------------------------------------------------------------------------------------


def _country(site: _Site) -> None:
    for rise, colour in ((0.30, (96, 124, 104)), (0.21, (80, 114, 78)), (0.12, (64, 104, 52))):
        _hills(site, rise, colour)
    grass = site.rng.integers((90, 120, 60), (130, 150, 80))
    site.ground(grass, grass)
    grey = int(site.rng.integers(88, 130))
    site.stripe((-60, 0), (60, 0), site.rng.uniform(5, 8), (grey, grey, grey))
    for _ in range(site.rng.integers(2, 7)):
        _tree(site)


def _street(site: _Site) -> None:
    left = -site.rng.uniform(0, 50)
    while left < site.width:
        right = left + site.rng.uniform(0.15, 0.4) * site.width
        _building(site, left, right)
        left = right
    grey = site.rng.integers(84, 132)
    site.ground(grey + np.array([0, 0, 3]), grey + np.array([14, 14, 12]))
    for lane in (-2.6, 3.4):
        for start in np.arange(-24, 24, 4.0):
            site.stripe((start, lane), (start + 2.3, lane), 0.14, (225, 225, 218))
    if site.rng.random() < 0.6:
        post = site.rng.uniform(0, site.width)
        site.box(post, 0, post + 3, site.horizon + 5, (70, 72, 74))


def _car_park(site: _Site) -> None:
    _hills(site, 0.5, (70, 98, 62))
    wall = site.rng.integers(110, 200) + site.rng.integers(-22, 22, 3)
    site.box(0, site.horizon * site.rng.uniform(0.72, 0.88), site.width, site.horizon + 5, wall)
    grey = site.rng.integers(100, 160)
    site.ground(grey - np.array([0, 2, 4]), grey + np.array([6, 4, 0]))
    paint = ((235, 235, 230), (225, 190, 70))[site.rng.integers(2)]
    slant = site.rng.uniform(-0.5, 0.5)
    for bay in (-12, -9, -6, -3, 3, 6, 9, 12):
        site.stripe((-3 + slant, bay), (3 - slant, bay), 0.12, paint)


def _garage(site: _Site) -> None:
    rng, width = site.rng, site.width
    wall = rng.integers(150, 235) + rng.uniform(-12, 12, 3)
    floor = rng.integers(90, 190) + np.array([0, 0, -2])
    foot = site.horizon + rng.uniform(0.03, 0.10) * site.image.height
    site.ground(floor, floor + 10)
    site.box(0, 0, width, foot, wall)
    for seam in np.arange(-rng.uniform(0, 0.2), 1, rng.uniform(0.12, 0.3)):
        site.box(seam * width, 0, seam * width + 2, foot, 0.85 * wall)
    if rng.random() < 0.5:
        _shutter(site, rng.uniform(-0.1, 0.7) * width, foot, wall)
    for lamp in rng.uniform(0, width, 3):
        site.box(lamp, 0.06 * foot, lamp + 45, 0.10 * foot, (340, 340, 330))


def _shutter(site: _Site, left: float, foot: float, wall: Floats) -> None:
    right = left + 0.4 * site.width
    site.box(left, 0.3 * foot, right, foot, 0.7 * wall)
    for slat in np.linspace(0.3 * foot, foot, 7):
        site.box(left, slat, right, slat + 1, 0.6 * wall)


def _hills(site: _Site, rise: float, colour: Rgb) -> None:
    """Paint a ridge about `rise` of the sky high."""
    at = np.linspace(0, 1, 60)
    lengths, starts = site.rng.uniform(2, 9, (3, 1)), site.rng.uniform(0, 6, (3, 1))
    waves = (np.sin(at * lengths * [[1], [2], [5]] + starts) / [[1], [2], [5]]).sum(axis=0)
    ridge = site.horizon * (1 - rise * (0.6 + 0.25 * waves))
    foot = np.array([(site.width, site.horizon + 4), (0, site.horizon + 4)])
    outline = np.concatenate([np.column_stack([at * site.width, ridge]), foot])
    site.canvas.flat(outline, site.tint(colour))


def _tree(site: _Site) -> None:
    rng = site.rng
    x, foot, high = rng.uniform(0, site.width), site.horizon + rng.uniform(-1, 4), site.horizon * rng.uniform(0.25, 0.6)
    site.box(x - 0.025 * high, foot - 0.6 * high, x + 0.025 * high, foot, (78, 62, 48))
    for _ in range(7):
        size = high * rng.uniform(0.14, 0.24)
        at, up = x + rng.normal(0, 0.13 * high), foot - high * rng.uniform(0.5, 0.9)
        leaves = site.tint(rng.integers((50, 84, 44), (74, 124, 45)))
        site.pen.ellipse((at - size, up - size, at + size, up + size), fill=leaves)


def _building(site: _Site, left: float, right: float) -> None:
    rng = site.rng
    high = site.horizon * rng.uniform(0.45, 1.1)
    roof = site.horizon + 3 - high
    facade = np.array(_FACADES[rng.integers(len(_FACADES))]) * rng.uniform(0.7, 1.1)
    site.box(left, roof, right, site.horizon + 3, facade)
    columns, rows = rng.integers((3, 3), (7, 6))
    wide, tall = (right - left) / columns, high / rows
    for row, column in np.ndindex(rows, columns):
        x, y = left + (column + 0.25) * wide, roof + (row + 0.25) * tall
        site.box(x, y, x + wide / 2, y + 0.55 * tall, (70, 84, 98))


def _gradient(size: tuple[int, int], top: Colour, bottom: Colour, reach: float) -> Image.Image:
    """Return a gradient from `top` to `bottom` in the first `reach` rows."""
    part = np.minimum(np.arange(size[1]) / max(reach, 1), 1)[:, None]
    column = np.array(top) * (1 - part) + np.array(bottom) * part
    return Image.fromarray(column.astype(np.uint8)[:, None]).resize(size, Image.Resampling.NEAREST)
