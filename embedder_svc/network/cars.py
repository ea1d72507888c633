"""The cars in a photo: chosen among a detector's boxes, put in order, and made into the parts of the photo that are embedded.

Pure: no pixels, no session. Everything that decides a part is in `DetectorInfo`, which the model's fingerprint covers, or here, which
`preprocess.VERSION` stands for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from embedder_svc.photos.resize import Box, Region, Size

Boxes = NDArray[np.float32]
"""(A, 4): left, top, right, bottom, as fractions of the photo."""
Scores = NDArray[np.float32]
"""(A,): 0 to 1."""

_MAX_CANDIDATES = 200
"""Boxes that are compared with each other, the best ones: a photo made for it could have all anchors say "car"."""
_MIN_SIDE = 2
"""Pixels. The edges of a box that is narrower may be rounded to the same pixel."""
_MAX_ASPECT = 8.0
"""Longer side over shorter side, in pixels. No car is that long; a crop that is would have to be scaled to far more pixels."""


@dataclass(frozen=True, kw_only=True)
class DetectorInfo:
    """The description of a model's detector, as it is in `model.json`."""

    name: str
    """For people, for example `mediapipe-objectron`."""
    source: str
    """The origin of the weights."""
    licence: str
    input_size: int
    """Side of the square input, in pixels."""
    threshold: float
    """The least score of what is taken for a car."""
    overlap: float
    """Two boxes are of one car if their intersection over union is above this."""
    margin: float
    """The part of its width or height that is left around a car on each side."""
    whole_from: float
    """A photo is left whole if the car, with its margin, covers at least this share of it."""
    max_cars: int
    """Most cars that are taken of one photo."""
    size_weight: float
    """The weight of a car's size in the choice of the main car; see `prominence`."""
    centre_weight: float
    """The weight of its distance from the photo's centre."""

    def __post_init__(self) -> None:
        """Raise ValueError if a score might not have a logarithm."""
        if not 0 < self.threshold <= 1:
            raise ValueError(f"`detector.threshold` is {self.threshold!r}")


@dataclass(frozen=True)
class Car:
    """A car in a photo, as the detector says: without a margin."""

    box: Box
    score: float


@dataclass(frozen=True)
class Cut:
    """A part of a photo. Its edges are at whole pixels, unless a caller gave it."""

    box: Box
    car_score: float | None = None
    """The score of the car that it was cut to; None if no detector chose it."""
    no_car_found: bool = False


WHOLE = Box(0.0, 0.0, 1.0, 1.0)


class Subject(Enum):
    """The part of a photo that is wanted, where no crop is given."""

    WHOLE = "whole"
    MAIN_CAR = "main car"
    EVERY_CAR = "every car"


def find(boxes: Boxes, scores: Scores, size: Size, info: DetectorInfo) -> list[Car]:
    """Return the cars of a photo of this size: the main one first, the others by score; at most `max_cars`."""
    boxes, scores = _candidates(boxes, scores, size, info.threshold)
    kept = suppress(boxes, scores, info.overlap)
    cars = [Car(Box(*map(float, boxes[i])), float(scores[i])) for i in kept]
    if not cars:
        return []
    main = max(cars, key=lambda car: prominence(car, info))
    return [main, *(car for car in cars if car is not main)][: info.max_cars]


def prominence(car: Car, info: DetectorInfo) -> float:
    """Return how likely the photo is of this car, as a number to compare cars of one photo by.

    log(score) + size_weight * log(share of the photo) - centre_weight * (distance of its centre from the photo's, as a part of
    half a diagonal, squared).
    """
    box = car.box
    share = (box.right - box.left) * (box.bottom - box.top)
    away = 2 * ((box.left + box.right - 1) / 2) ** 2 + 2 * ((box.top + box.bottom - 1) / 2) ** 2
    return math.log(car.score) + info.size_weight * math.log(share) - info.centre_weight * away


def cuts(cars: Sequence[Car], size: Size, info: DetectorInfo) -> list[Cut]:
    """Return the part of the photo for each car, or the whole photo if there is none."""
    if not cars:
        return [Cut(WHOLE, no_car_found=True)]
    return [Cut(_part(car.box, size, info), car.score) for car in cars]


def suppress(boxes: Boxes, scores: Scores, overlap: float) -> list[int]:
    """Return the numbers of the boxes that overlap no box of a higher score by more than that, by score.

    Of boxes with equal scores the first counts as higher. (Non-maximum suppression.)
    """
    waiting = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(waiting):
        best, others = waiting[0], waiting[1:]
        kept.append(int(best))
        waiting = others[overlaps(boxes[best], boxes[others]) <= overlap]
    return kept


def overlaps(box: Boxes, others: Boxes) -> NDArray[np.float32]:
    """Return the intersection over union (N,) of a box (4,) and others (N, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(sides.clip(0), axis=1)
    union: NDArray[np.float32] = _areas(box[None]) + _areas(others) - shared
    found: NDArray[np.float32] = shared / union
    return found


def _candidates(boxes: Boxes, scores: Scores, size: Size, threshold: float) -> tuple[Boxes, Scores]:
    """Return what may be a car, best first: boxes within the photo that score enough, and have the shape of one."""
    good = np.flatnonzero(scores >= threshold)
    best = good[np.argsort(-scores[good], kind="stable")][:_MAX_CANDIDATES]
    boxes, scores = boxes[best].clip(0.0, 1.0), scores[best]
    sides = (boxes[:, 2:] - boxes[:, :2]) * np.array(size, np.float32)  # in pixels; NaN fails each comparison
    shaped = (sides.min(axis=1) >= _MIN_SIDE) & (sides.max(axis=1) <= _MAX_ASPECT * sides.min(axis=1))
    return boxes[shaped], scores[shaped]


def _part(box: Box, size: Size, info: DetectorInfo) -> Box:
    """Return the box with its margin, at whole pixels; all of the photo if it leaves hardly anything of that away."""
    left, top, right, bottom = _with_margin(box, info.margin).region(size)
    width, height = size
    if (right - left) * (bottom - top) >= info.whole_from * width * height:
        return WHOLE
    return _aligned((left, top, right, bottom), size)


def _with_margin(box: Box, margin: float) -> Box:
    beside, above = margin * (box.right - box.left), margin * (box.bottom - box.top)
    return Box(
        max(0.0, box.left - beside),
        max(0.0, box.top - above),
        min(1.0, box.right + beside),
        min(1.0, box.bottom + above),
    )


def _aligned(region: Region, size: Size) -> Box:
    """Return the box whose region is this one, also after its edges have travelled as float32."""
    (left, top, right, bottom), (width, height) = region, size
    return Box(left / width, top / height, right / width, bottom / height)


def _areas(boxes: Boxes) -> NDArray[np.float32]:
    areas: NDArray[np.float32] = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return areas
