"""Describes a car: its proportions, its face and its colours."""

from dataclasses import dataclass
from typing import Literal

Rgb = tuple[int, int, int]

Trim = Literal[
    "bed", "panel sides", "rails", "cladding", "dark bumpers", "stripe", "chrome", "scoop", "black roof", "white roof"
]


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
    """Outer radius of the tyres, in metres."""
    clearance: float
    """Height of the sills."""
    corners: float
    """Exponent of the superellipse that is the car's plan: higher is boxier."""
    taper: float
    """Width of the roof, as a fraction of the width at the belt."""
    pillars: tuple[float, ...]
    """Where a door ends and a window post stands, as fractions of the way from `screen` to `rear_base`."""
    trim: frozenset[Trim] = frozenset()


@dataclass(frozen=True)
class Face:
    """The details at both ends. Widths are fractions of half the car's; heights and tops are levels of the body."""

    grille: str
    """A key of `outlines.GRILLES`."""
    pattern: str
    """What fills the grille: rows, columns, twin, wing or nothing."""
    bars: int
    grille_width: float
    grille_height: float
    grille_top: float
    lamp: str
    """A key of `outlines.LAMPS`, as is `tail_lamp`."""
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
    rim: str
    """A key of `outlines.SPOKES`, or disc."""
    spokes: int


@dataclass(frozen=True)
class Car:
    """All that tells one class from another."""

    body: Body
    face: Face
    colours: tuple[Rgb, ...]
    """The colours of paint that it is sold in."""
