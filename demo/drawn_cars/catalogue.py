"""The cars there are to draw: invented makes and their models.

A make gives its cars one face, a stance and its paints. A model is a body style with proportions and trim of its own.
Two years of one generation share the body and differ in details, as real ones do.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from demo.drawn_cars.car import Body, Car, Face, Rgb, Trim

COLOURS: Mapping[str, Rgb] = MappingProxyType(
    {
        "white": (236, 236, 234),
        "black": (24, 24, 28),
        "silver": (176, 178, 182),
        "grey": (96, 100, 106),
        "blue": (24, 52, 112),
        "red": (150, 20, 26),
        "green": (26, 76, 52),
        "sand": (188, 176, 148),
        "orange": (206, 96, 24),
        "yellow": (222, 186, 40),
        "sky": (88, 140, 186),
        "wine": (78, 32, 40),
    }
)


@dataclass(frozen=True)
class Make:
    """The traits that the cars of a make have in common. `stance` are factors on a body style's proportions."""

    colours: tuple[str, ...]
    stance: Mapping[str, float]
    face: Face


# fmt: off
STYLES: Mapping[str, Body] = MappingProxyType({
    # length, width, height;  nose, cowl, belt, tail;  screen, roof front and rear, rear base;  axles;
    # wheel, clearance;  corners, taper;  pillars
    "sedan":     Body(4.70, 1.82, 1.45,  0.72, 0.98, 1.02, 0.98,  0.29, 0.43, 0.66, 0.85,  0.19, 0.79,
                      0.33, 0.20,  7, 0.78,  (0.43, 0.76)),
    "hatchback": Body(4.15, 1.78, 1.48,  0.74, 0.98, 1.06, 1.02,  0.26, 0.42, 0.84, 0.97,  0.20, 0.81,
                      0.32, 0.19,  6, 0.80,  (0.40, 0.74)),
    "coupe":     Body(4.50, 1.84, 1.32,  0.68, 0.93, 0.99, 0.96,  0.34, 0.49, 0.66, 0.90,  0.19, 0.80,
                      0.34, 0.15,  6, 0.74,  (0.58,)),
    "suv":       Body(4.70, 1.90, 1.76,  0.96, 1.14, 1.19, 1.15,  0.26, 0.38, 0.88, 0.98,  0.19, 0.80,
                      0.39, 0.28,  8, 0.82,  (0.36, 0.66)),
    "pickup":    Body(5.40, 1.93, 1.82,  1.02, 1.17, 1.18, 1.17,  0.26, 0.35, 0.56, 0.595,  0.17, 0.79,
                      0.40, 0.31,  10, 0.80,  (0.50,)),
    "van":       Body(4.90, 1.92, 1.98,  0.88, 1.14, 1.16, 1.12,  0.10, 0.26, 0.965, 0.99,  0.15, 0.79,
                      0.34, 0.22,  9, 0.88,  (0.30, 0.64)),
    "cargo":     Body(5.20, 1.95, 2.10,  0.92, 1.12, 1.14, 1.10,  0.13, 0.25, 0.975, 0.99,  0.16, 0.78,
                      0.35, 0.24,  10, 0.92,  (0.27, 0.60)),
    "wagon":     Body(4.75, 1.83, 1.48,  0.72, 0.98, 1.04, 1.00,  0.28, 0.41, 0.88, 0.975,  0.19, 0.78,
                      0.33, 0.19,  7, 0.79,  (0.36, 0.65)),
    "city":      Body(3.55, 1.64, 1.53,  0.80, 1.02, 1.08, 1.04,  0.21, 0.38, 0.88, 0.985,  0.18, 0.84,
                      0.29, 0.18,  5, 0.82,  (0.56,)),
})

MAKES: Mapping[str, Make] = MappingProxyType({
    # grille, what fills it, bars, width, height, top;  lamp, width, height, top, bulbs;
    # tail lamp, width, height, top, bar between;  badge;  rim, spokes
    "aurora": Make(
        ("sky", "orange", "white", "grey"), {"wheel": 1.06},
        Face(
            "hexagon", "columns", 9, 0.42, 0.46, 0.86,  "almond", 0.42, 0.28, 0.90, (0.35, 0.68),
            "wedge", 0.42, 0.30, 0.88, False,  "diamond",  "star", 5,
        ),
    ),
    "castell": Make(
        ("black", "silver", "wine", "blue"), {"length": 1.05, "nose": 1.06, "corners": 1.4},
        Face(
            "shield", "rows", 6, 0.40, 0.66, 0.94,  "block", 0.36, 0.24, 0.88, (0.3, 0.7),
            "tall", 0.24, 0.46, 0.92, False,  "shield",  "thin", 10,
        ),
    ),
    "drayton": Make(
        ("red", "sand", "green", "white"), {"height": 1.05, "clearance": 1.2, "corners": 1.7, "wheel": 1.08},
        Face(
            "box", "columns", 7, 0.56, 0.44, 0.88,  "round", 0.26, 0.40, 0.88, (0.5,),
            "block", 0.18, 0.42, 0.86, False,  "bar",  "disc", 8,
        ),
    ),
    "hokuto": Make(
        ("white", "red", "silver", "yellow"), {"length": 0.95, "height": 1.04, "corners": 0.8, "wheel": 0.95},
        Face(
            "smile", "wing", 0, 0.54, 0.28, 0.80,  "slit", 0.50, 0.32, 0.92, (0.4,),
            "almond", 0.36, 0.32, 0.88, False,  "disc",  "fork", 5,
        ),
    ),
    "lumen": Make(
        ("grey", "sky", "black", "white"), {"height": 0.96, "corners": 0.7, "taper": 0.93, "wheel": 1.12},
        Face(
            "oval", "none", 0, 0.20, 0.16, 0.74,  "drop", 0.32, 0.40, 0.90, (0.3, 0.55, 0.8),
            "slit", 0.44, 0.26, 0.86, True,  "chevron",  "blade", 6,
        ),
    ),
    "norvik": Make(
        ("green", "blue", "silver", "sand"), {"corners": 2.0, "taper": 1.06, "nose": 1.05, "cowl": 1.03},
        Face(
            "trapezoid", "rows", 3, 0.40, 0.40, 0.86,  "tall", 0.30, 0.38, 0.90, (0.5,),
            "tall", 0.17, 0.70, 0.99, False,  "star",  "star", 7,
        ),
    ),
    "veloce": Make(
        ("yellow", "red", "blue", "orange"), {"height": 0.92, "nose": 0.92, "clearance": 0.75, "corners": 0.7},
        Face(
            "oval", "twin", 0, 0.42, 0.44, 0.82,  "round", 0.26, 0.40, 0.92, (0.5,),
            "round", 0.24, 0.38, 0.88, False,  "shield",  "fork", 7,
        ),
    ),
})

MODELS: tuple[tuple[str, str, str, tuple[int, ...], tuple[Trim, ...]], ...] = (
    # make, model, body style, years of one generation, trim
    ("aurora",  "pike",   "pickup",    (2009, 2012), ("bed", "stripe")),
    ("aurora",  "lark",   "city",      (2014,),      ("white roof",)),
    ("aurora",  "heron",  "wagon",     (2011,),      ("rails", "chrome")),
    ("aurora",  "osprey", "suv",       (2016,),      ("rails", "black roof")),
    ("castell", "regent", "sedan",     (2006, 2008), ("chrome",)),
    ("castell", "baron",  "suv",       (2013,),      ("rails", "chrome")),
    ("castell", "page",   "hatchback", (2010,),      ("black roof",)),
    ("castell", "herald", "coupe",     (2012,),      ("stripe",)),
    ("castell", "porter", "van",       (2011,),      ("chrome", "black roof")),
    ("drayton", "bison",  "pickup",    (2007, 2011), ("bed", "dark bumpers", "cladding")),
    ("drayton", "ranch",  "suv",       (2005,),      ("rails", "cladding", "dark bumpers", "white roof")),
    ("drayton", "hauler", "cargo",     (2010,),      ("panel sides", "dark bumpers")),
    ("drayton", "bronc",  "coupe",     (1998,),      ("scoop", "stripe")),
    ("hokuto",  "kaze",   "hatchback", (2015, 2018), ("stripe", "scoop")),
    ("hokuto",  "mori",   "wagon",     (2012,),      ("rails", "cladding")),
    ("hokuto",  "sora",   "sedan",     (2017,),      ()),
    ("hokuto",  "hako",   "van",       (2014,),      ("white roof",)),
    ("hokuto",  "mame",   "city",      (2013,),      ("black roof", "cladding")),
    ("lumen",   "arc",    "sedan",     (2020, 2022), ("black roof",)),
    ("lumen",   "ray",    "coupe",     (2021,),      ("black roof", "chrome")),
    ("lumen",   "beam",   "suv",       (2023,),      ("white roof", "cladding")),
    ("norvik",  "fjord",  "wagon",     (2003, 2007), ("rails", "dark bumpers")),
    ("norvik",  "skog",   "suv",       (2010,),      ("rails", "cladding")),
    ("norvik",  "torp",   "city",      (2009,),      ("dark bumpers", "stripe")),
    ("norvik",  "holm",   "sedan",     (2005,),      ("dark bumpers", "chrome")),
    ("norvik",  "elg",    "pickup",    (2015,),      ("bed", "cladding")),
    ("veloce",  "spina",  "coupe",     (2016, 2019), ("scoop",)),
    ("veloce",  "falco",  "sedan",     (2014,),      ("stripe", "black roof")),
    ("veloce",  "vela",   "hatchback", (2012,),      ("white roof",)),
)
# fmt: on

_SIZES = ("length", "height", "wheel", "nose", "cowl", "corners", "taper")
_PLACES = ("screen", "roof_front", "roof_rear")
_FEATURES = ("grille_width", "grille_height", "lamp_width", "lamp_height", "tail_width", "tail_height")


def _cars() -> Iterator[tuple[str, Car]]:
    for make_name, model, style, years, trim in MODELS:
        make = MAKES[make_name]
        rng = np.random.default_rng(list(hashlib.sha256(f"{make_name} {model}".encode()).digest()))
        body = replace(_own_body(_stand(STYLES[style], make.stance), rng), trim=frozenset(trim))
        car = Car(body, _own_face(make.face, rng), tuple(COLOURS[name] for name in make.colours))
        for year in years:
            yield f"{make_name}_{model}_{year}", car
            car = replace(car, face=_facelift(car.face))


def _stand(style: Body, stance: Mapping[str, float]) -> Body:
    return replace(style, **{name: getattr(style, name) * factor for name, factor in stance.items()})


def _own_body(style: Body, rng: np.random.Generator) -> Body:
    """A model's own proportions: near its style's."""
    sizes = {name: getattr(style, name) * rng.uniform(0.9, 1.1) for name in _SIZES}
    places = {name: getattr(style, name) + rng.uniform(-0.03, 0.03) for name in _PLACES}
    return replace(style, **sizes, **places)


def _own_face(make: Face, rng: np.random.Generator) -> Face:
    """A model's own face: near its make's."""
    return replace(make, **{name: getattr(make, name) * rng.uniform(0.75, 1.3) for name in _FEATURES})


def _facelift(face: Face) -> Face:
    """Return the face of a generation some years later: other rims, slimmer lamps, a taller grille."""
    return replace(
        face,
        spokes=face.spokes + 2,
        lamp_height=face.lamp_height * 0.78,
        tail_height=face.tail_height * 0.85,
        grille_height=face.grille_height * 1.15,
    )


CARS: Mapping[str, Car] = MappingProxyType(dict(_cars()))
"""Label -> car, for every class that can be drawn."""
