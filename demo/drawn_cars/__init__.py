"""Draws photos of cars that do not exist.

A class is a body shape with a face; its photos differ in colour, view, place, light and quality. A car is two lofted
surfaces with flat parts on them, painted back to front with Pillow.
"""

import functools
import hashlib

import numpy as np
from PIL import Image

from demo.drawn_cars import photo, scenery
from demo.drawn_cars.bodywork import paint_car
from demo.drawn_cars.canvas import Camera, Canvas, aim
from demo.drawn_cars.car import Body, Car
from demo.drawn_cars.catalogue import CARS
from demo.drawn_cars.solid import Solid
from demo.drawn_cars.weather import WEATHERS, Paint, Weather, light

LABELS = tuple(CARS)
"""The labels of all classes that can be drawn."""

_OVERSAMPLED = 2
# (from, to, share): degrees from straight ahead
_VIEWS = ((25, 60, 0.68), (60, 88, 0.20), (125, 150, 0.12))


def draw(label: str, seed: int) -> Image.Image:
    """Return photo number `seed` (>= 0) of a car of class `label`, about 320 x 235 pixels; always the same on one machine.

    Raises ValueError if there is no such class.
    """
    if label not in CARS:
        raise ValueError(f"no car {label!r} to draw, only {', '.join(LABELS)}")
    return _take(CARS[label], _generator(label, seed, "photo"))


def jpeg(label: str, seed: int) -> bytes:
    """Return what `draw` returns as the bytes of a JPEG file, whose quality differs from photo to photo."""
    return photo.jpeg(draw(label, seed), _generator(label, seed, "quality"))


def _generator(label: str, seed: int, use: str) -> np.random.Generator:
    return np.random.default_rng([seed, *hashlib.sha256(f"{use} {label}".encode()).digest()])


def _take(car: Car, rng: np.random.Generator) -> Image.Image:
    size = (int(rng.integers(300, 341)), int(rng.integers(215, 256)))
    large = (size[0] * _OVERSAMPLED, size[1] * _OVERSAMPLED)
    solid = _solid(car.body)
    camera = _camera(solid, large, rng)
    weather = _weather(rng)
    sunlight = light(weather, rng)
    scene = scenery.backdrop(large, camera, weather, rng)
    scenery.cast_shadow(scene, camera, (car.body.length, car.body.width), sunlight, weather.shadow)
    paint_car(Canvas(scene, camera), car, solid, _paint(car, rng), sunlight)
    return photo.expose(scene, size, rng)


@functools.cache
def _solid(body: Body) -> Solid:
    return Solid(body)


def _camera(solid: Solid, size: tuple[int, int], rng: np.random.Generator) -> Camera:
    """Return a camera somewhere around the car, on either side, at about eye level."""
    first, last, _ = _VIEWS[rng.choice(len(_VIEWS), p=[share for *_, share in _VIEWS])]
    yaw = np.radians(rng.uniform(first, last)) * rng.choice((-1, 1))
    away = rng.uniform(5.5, 10)
    eye = np.array([away * np.cos(yaw), away * np.sin(yaw), solid.body.height * rng.uniform(0.72, 1.15)])
    car = np.concatenate([solid.body_rings.reshape(-1, 3), solid.cabin_rings.reshape(-1, 3)])
    tyres = car[: len(car) // 2] * (0.85, 1, 0)
    shift = (rng.normal(0, 0.015), rng.normal(0.02, 0.015))
    return aim(eye, np.concatenate([car, tyres]), size, rng.uniform(0.86, 0.96), shift)


def _weather(rng: np.random.Generator) -> Weather:
    weathers = list(WEATHERS.values())
    return weathers[rng.choice(len(weathers), p=[weather.share for weather in weathers])]


def _paint(car: Car, rng: np.random.Generator) -> Paint:
    colour = np.array(car.colours[rng.integers(len(car.colours))]) + rng.normal(0, 8, 3)
    return Paint(np.clip(colour, 8, 245), gloss=rng.uniform(0.3, 0.9))
