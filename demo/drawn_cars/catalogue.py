"""The cars there are to draw: invented makes, their models, and the shapes that tell them apart.

A make gives its cars one face (grille, lamps, badge). A model is a body style with proportions of its own. Two years of
one generation share the body and differ in details, as real ones do.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True)
class Body:
    """Proportions. Heights in metres; places along the car as fractions of its length, from the nose."""

    length: float
    width: float
    height: float
    nose: float
    """Height of the bonnet's leading edge."""
    cowl: float
    """Height where the windscreen meets the bonnet."""
    belt: float
    """Height of the lower edge of the rearmost side window."""
    tail: float
    """Height of the body's upper edge at the tail."""
    screen: float
    """Where the windscreen meets the bonnet."""
    roof_front: float
    roof_rear: float
    rear_base: float
    """Where the rear window meets the body."""
    front_axle: float
    rear_axle: float
    wheel: float
    """Outer radius of the tyres."""
    clearance: float
    corners: float
    """Exponent of the superellipse that is the car's plan: higher is boxier."""
    taper: float
    """Width of the roof, as a fraction of the width at the belt."""
    pillars: tuple[float, ...]
    """Where a door ends and a window post stands, as fractions of the way from `screen` to `rear_base`."""
    bed: bool = False
    rails: bool = False
    cladding: bool = False
    panel_sides: bool = False
    """No windows behind the front doors."""


@dataclass(frozen=True)
class Face:
    """The details at both ends. Sizes as fractions of the car's half width, or of the body's height at that end."""

    grille: str
    """A key of `outlines.GRILLES`."""
    pattern: str
    """What fills the grille: rows, columns, twin, wing or nothing."""
    grille_bars: int
    grille_width: float
    grille_height: float
    grille_top: float
    lamp: str
    """A key of `outlines.LAMPS`."""
    lamp_width: float
    lamp_height: float
    lamp_top: float
    bulbs: tuple[float, ...]
    """Where in the lamp they are, from its outer edge."""
    tail_lamp: str
    tail_width: float
    tail_height: float
    tail_top: float
    tail_bar: bool
    """Whether a band of light joins the tail lamps."""
    badge: str
    """A key of `outlines.BADGES`."""
    wheel: str
    """A key of `outlines.SPOKES`, or disc."""
    spokes: int


@dataclass(frozen=True)
class Car:
    """All that tells one class from another."""

    body: Body
    face: Face


STYLES = MappingProxyType(
    {
        "sedan": Body(
            length=4.70,
            width=1.82,
            height=1.45,
            nose=0.72,
            cowl=0.98,
            belt=1.02,
            tail=0.98,
            screen=0.29,
            roof_front=0.43,
            roof_rear=0.66,
            rear_base=0.85,
            front_axle=0.19,
            rear_axle=0.79,
            wheel=0.33,
            clearance=0.20,
            corners=7,
            taper=0.78,
            pillars=(0.43, 0.76),
        ),
        "hatchback": Body(
            length=4.15,
            width=1.78,
            height=1.48,
            nose=0.74,
            cowl=0.98,
            belt=1.06,
            tail=1.02,
            screen=0.26,
            roof_front=0.42,
            roof_rear=0.84,
            rear_base=0.97,
            front_axle=0.20,
            rear_axle=0.81,
            wheel=0.32,
            clearance=0.19,
            corners=6,
            taper=0.80,
            pillars=(0.40, 0.74),
        ),
        "coupe": Body(
            length=4.50,
            width=1.84,
            height=1.32,
            nose=0.68,
            cowl=0.93,
            belt=0.99,
            tail=0.96,
            screen=0.34,
            roof_front=0.49,
            roof_rear=0.66,
            rear_base=0.90,
            front_axle=0.19,
            rear_axle=0.80,
            wheel=0.34,
            clearance=0.15,
            corners=6,
            taper=0.74,
            pillars=(0.58,),
        ),
        "suv": Body(
            length=4.70,
            width=1.90,
            height=1.76,
            nose=0.96,
            cowl=1.14,
            belt=1.19,
            tail=1.15,
            screen=0.26,
            roof_front=0.38,
            roof_rear=0.88,
            rear_base=0.98,
            front_axle=0.19,
            rear_axle=0.80,
            wheel=0.39,
            clearance=0.28,
            corners=8,
            taper=0.82,
            pillars=(0.36, 0.66),
            rails=True,
            cladding=True,
        ),
        "pickup": Body(
            length=5.40,
            width=1.93,
            height=1.82,
            nose=1.02,
            cowl=1.17,
            belt=1.18,
            tail=1.17,
            screen=0.26,
            roof_front=0.35,
            roof_rear=0.56,
            rear_base=0.595,
            front_axle=0.17,
            rear_axle=0.79,
            wheel=0.40,
            clearance=0.31,
            corners=10,
            taper=0.80,
            pillars=(0.50,),
            bed=True,
        ),
        "van": Body(
            length=4.90,
            width=1.92,
            height=1.98,
            nose=0.88,
            cowl=1.14,
            belt=1.16,
            tail=1.12,
            screen=0.10,
            roof_front=0.26,
            roof_rear=0.965,
            rear_base=0.99,
            front_axle=0.15,
            rear_axle=0.79,
            wheel=0.34,
            clearance=0.22,
            corners=9,
            taper=0.88,
            pillars=(0.30, 0.64),
        ),
        "cargo": Body(
            length=5.20,
            width=1.95,
            height=2.10,
            nose=0.92,
            cowl=1.12,
            belt=1.14,
            tail=1.10,
            screen=0.13,
            roof_front=0.25,
            roof_rear=0.975,
            rear_base=0.99,
            front_axle=0.16,
            rear_axle=0.78,
            wheel=0.35,
            clearance=0.24,
            corners=10,
            taper=0.92,
            pillars=(0.27, 0.60),
            panel_sides=True,
        ),
        "wagon": Body(
            length=4.75,
            width=1.83,
            height=1.48,
            nose=0.72,
            cowl=0.98,
            belt=1.04,
            tail=1.00,
            screen=0.28,
            roof_front=0.41,
            roof_rear=0.88,
            rear_base=0.975,
            front_axle=0.19,
            rear_axle=0.78,
            wheel=0.33,
            clearance=0.19,
            corners=7,
            taper=0.79,
            pillars=(0.36, 0.65),
            rails=True,
        ),
        "city": Body(
            length=3.55,
            width=1.64,
            height=1.53,
            nose=0.80,
            cowl=1.02,
            belt=1.08,
            tail=1.04,
            screen=0.21,
            roof_front=0.38,
            roof_rear=0.88,
            rear_base=0.985,
            front_axle=0.18,
            rear_axle=0.84,
            wheel=0.29,
            clearance=0.18,
            corners=5,
            taper=0.82,
            pillars=(0.56,),
        ),
    }
)

MAKES = MappingProxyType(
    {
        "aurora": Face(
            grille="hexagon",
            pattern="columns",
            grille_bars=9,
            grille_width=0.40,
            grille_height=0.42,
            grille_top=0.84,
            lamp="almond",
            lamp_width=0.40,
            lamp_height=0.24,
            lamp_top=0.88,
            bulbs=(0.35, 0.68),
            tail_lamp="wedge",
            tail_width=0.42,
            tail_height=0.26,
            tail_top=0.86,
            tail_bar=False,
            badge="diamond",
            wheel="star",
            spokes=5,
        ),
        "castell": Face(
            grille="shield",
            pattern="rows",
            grille_bars=6,
            grille_width=0.34,
            grille_height=0.56,
            grille_top=0.90,
            lamp="block",
            lamp_width=0.36,
            lamp_height=0.22,
            lamp_top=0.86,
            bulbs=(0.3, 0.7),
            tail_lamp="tall",
            tail_width=0.24,
            tail_height=0.42,
            tail_top=0.90,
            tail_bar=False,
            badge="shield",
            wheel="thin",
            spokes=10,
        ),
        "drayton": Face(
            grille="box",
            pattern="columns",
            grille_bars=7,
            grille_width=0.52,
            grille_height=0.36,
            grille_top=0.84,
            lamp="round",
            lamp_width=0.24,
            lamp_height=0.34,
            lamp_top=0.84,
            bulbs=(0.5,),
            tail_lamp="block",
            tail_width=0.18,
            tail_height=0.36,
            tail_top=0.84,
            tail_bar=False,
            badge="bar",
            wheel="disc",
            spokes=8,
        ),
        "hokuto": Face(
            grille="smile",
            pattern="wing",
            grille_bars=0,
            grille_width=0.50,
            grille_height=0.22,
            grille_top=0.80,
            lamp="slit",
            lamp_width=0.46,
            lamp_height=0.26,
            lamp_top=0.90,
            bulbs=(0.4,),
            tail_lamp="almond",
            tail_width=0.34,
            tail_height=0.28,
            tail_top=0.86,
            tail_bar=False,
            badge="disc",
            wheel="fork",
            spokes=5,
        ),
        "lumen": Face(
            grille="oval",
            pattern="none",
            grille_bars=0,
            grille_width=0.20,
            grille_height=0.14,
            grille_top=0.74,
            lamp="drop",
            lamp_width=0.30,
            lamp_height=0.34,
            lamp_top=0.88,
            bulbs=(0.3, 0.55, 0.8),
            tail_lamp="slit",
            tail_width=0.40,
            tail_height=0.22,
            tail_top=0.84,
            tail_bar=True,
            badge="chevron",
            wheel="blade",
            spokes=6,
        ),
        "norvik": Face(
            grille="trapezoid",
            pattern="rows",
            grille_bars=3,
            grille_width=0.38,
            grille_height=0.34,
            grille_top=0.82,
            lamp="tall",
            lamp_width=0.30,
            lamp_height=0.34,
            lamp_top=0.88,
            bulbs=(0.5,),
            tail_lamp="tall",
            tail_width=0.16,
            tail_height=0.62,
            tail_top=0.98,
            tail_bar=False,
            badge="star",
            wheel="star",
            spokes=7,
        ),
        "veloce": Face(
            grille="oval",
            pattern="twin",
            grille_bars=0,
            grille_width=0.38,
            grille_height=0.34,
            grille_top=0.80,
            lamp="round",
            lamp_width=0.24,
            lamp_height=0.36,
            lamp_top=0.90,
            bulbs=(0.5,),
            tail_lamp="round",
            tail_width=0.22,
            tail_height=0.34,
            tail_top=0.86,
            tail_bar=False,
            badge="shield",
            wheel="fork",
            spokes=7,
        ),
    }
)

# (make, model, body style, years of one generation)
MODELS = (
    ("aurora", "pike", "pickup", (2009, 2012)),
    ("aurora", "lark", "city", (2014,)),
    ("aurora", "heron", "wagon", (2011,)),
    ("aurora", "osprey", "suv", (2016,)),
    ("castell", "regent", "sedan", (2006, 2008)),
    ("castell", "baron", "suv", (2013,)),
    ("castell", "page", "hatchback", (2010,)),
    ("castell", "herald", "coupe", (2012,)),
    ("castell", "porter", "van", (2011,)),
    ("drayton", "bison", "pickup", (2007, 2011)),
    ("drayton", "ranch", "suv", (2005,)),
    ("drayton", "hauler", "cargo", (2010,)),
    ("drayton", "bronc", "coupe", (1998,)),
    ("hokuto", "kaze", "hatchback", (2015, 2018)),
    ("hokuto", "mori", "wagon", (2012,)),
    ("hokuto", "sora", "sedan", (2017,)),
    ("hokuto", "hako", "van", (2014,)),
    ("hokuto", "mame", "city", (2013,)),
    ("lumen", "arc", "sedan", (2020, 2022)),
    ("lumen", "ray", "coupe", (2021,)),
    ("lumen", "beam", "suv", (2023,)),
    ("norvik", "fjord", "wagon", (2003, 2007)),
    ("norvik", "skog", "suv", (2010,)),
    ("norvik", "torp", "city", (2009,)),
    ("norvik", "holm", "sedan", (2005,)),
    ("norvik", "elg", "pickup", (2015,)),
    ("veloce", "spina", "coupe", (2016, 2019)),
    ("veloce", "falco", "sedan", (2014,)),
    ("veloce", "vela", "hatchback", (2012,)),
)


_JITTER = {"length": 0.05, "height": 0.05, "wheel": 0.05, "nose": 0.04, "cowl": 0.04, "corners": 0.06, "taper": 0.06}
_SHIFT = ("screen", "roof_front", "roof_rear")
_OWN_FACE = ("grille_width", "grille_height", "lamp_width", "lamp_height", "tail_width", "tail_height")


def _cars() -> Iterator[tuple[str, Car]]:
    for make, model, style, years in MODELS:
        rng = np.random.default_rng(list(hashlib.sha256(f"{make} {model}".encode()).digest()))
        car = Car(_own_body(STYLES[style], rng), _own_face(MAKES[make], rng))
        for year in years:
            yield f"{make}_{model}_{year}", car
            car = Car(car.body, _facelift(car.face))


def _own_body(style: Body, rng: np.random.Generator) -> Body:
    """A model's own proportions: near its style's."""
    sizes = {name: getattr(style, name) * rng.uniform(1 - part, 1 + part) for name, part in _JITTER.items()}
    places = {name: getattr(style, name) + rng.uniform(-0.02, 0.02) for name in _SHIFT}
    return replace(style, **sizes, **places)


def _own_face(make: Face, rng: np.random.Generator) -> Face:
    """A model's own face: near its make's."""
    return replace(make, **{name: getattr(make, name) * rng.uniform(0.82, 1.22) for name in _OWN_FACE})


def _facelift(face: Face) -> Face:
    """The same generation some years on: other rims, slimmer lamps, a taller grille."""
    return replace(
        face,
        spokes=face.spokes + 2,
        lamp_height=face.lamp_height * 0.78,
        tail_height=face.tail_height * 0.85,
        grille_height=face.grille_height * 1.15,
    )


CARS = MappingProxyType(dict(_cars()))
"""Every class there is to draw, by label."""
