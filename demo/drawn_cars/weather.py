"""Light: the direction that it comes from, and its effect on the colours of things."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from demo.drawn_cars.canvas import Colour, Floats
from demo.drawn_cars.car import Rgb


@dataclass(frozen=True)
class Weather:
    """An hour's sky and light. Strengths are factors."""

    share: float
    """The share of photos that are taken in it, 0 to 1."""
    zenith: Rgb
    horizon: Rgb
    direct: float
    ambient: float
    shadow: float

    def tint(self, colour: ArrayLike) -> Colour:
        """Return a dull surface's colour in this light."""
        bright = min(1.1, self.ambient + 0.6 * self.direct)
        cast = 0.6 + 0.4 * np.array(self.horizon) / 255
        return rgb(np.asarray(colour) * bright * cast)


WEATHERS = MappingProxyType(
    {
        "noon": Weather(0.40, (96, 148, 214), (196, 218, 236), direct=0.62, ambient=0.52, shadow=0.72),
        "clouds": Weather(0.36, (176, 184, 194), (216, 220, 224), direct=0.18, ambient=0.80, shadow=0.55),
        "evening": Weather(0.08, (92, 104, 150), (244, 190, 140), direct=0.50, ambient=0.46, shadow=0.6),
        "dusk": Weather(0.04, (58, 70, 108), (166, 146, 156), direct=0.16, ambient=0.58, shadow=0.5),
        "indoors": Weather(0.12, (188, 188, 184), (206, 205, 200), direct=0.25, ambient=0.70, shadow=0.6),
    }
)


@dataclass(frozen=True)
class Light:
    """Light on a car: `sun` is the unit vector towards it; surfaces that look up mirror the `sky`."""

    sun: Floats
    direct: float
    ambient: float
    sky: Rgb


def light(weather: Weather, rng: np.random.Generator) -> Light:
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.2)
    sun = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    return Light(sun, weather.direct, weather.ambient, weather.horizon)


@dataclass(frozen=True)
class Paint:
    """A car's colour, and how much of its surroundings it mirrors."""

    colour: Floats
    gloss: float

    def lit(self, normals: Floats, light: Light) -> Floats:
        """Return the colours (n, 3), 0 to 255, of surfaces with unit normals (n, 3)."""
        up = normals[:, 2:]
        facing = np.clip(normals @ light.sun, 0, 1)[:, None]
        diffuse = light.ambient * (0.72 + 0.28 * up) + light.direct * facing
        mirror = 0.4 * self.gloss * np.clip(0.5 + 2.2 * up, 0, 1) ** 1.5
        glint = 0.9 * self.gloss * light.direct * facing**24
        return np.clip(self.colour * diffuse * (1 - mirror) + np.array(light.sky) * (mirror + glint), 0, 255)


def rgb(colour: Floats) -> Rgb:
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return red, green, blue
