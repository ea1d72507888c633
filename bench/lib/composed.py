"""Photos of several cars, composed of real ones, of which it is known where each car is and which one the photo is of.

The cars are cut from photos with known boxes (../shared/data/boxed) and put on the surroundings of another one: what is above its car
becomes the upper half, what is below the lower one. The main car is larger than the others or nearer to the centre, mostly both; as
in a car park, the one beside it may be as large and cut off by the edge.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (480, 360)
_TRIES = 200


@dataclass(frozen=True)
class Boxed:
    """A photo of a car, and where that is: left, top, right, bottom, as fractions."""

    path: Path
    label: str
    box: tuple[float, float, float, float]

    def image(self) -> Image.Image:
        return Image.open(self.path).convert("RGB")

    def car(self) -> Image.Image:
        image = self.image()
        return image.crop(tuple(round(edge * side) for edge, side in zip(self.box, 2 * image.size, strict=True)))


@dataclass(frozen=True)
class Composed:
    image: Image.Image
    boxes: NDArray[np.float64]
    """(n, 4), as fractions of what is inside the picture; the main car is the first."""
    cars: list[Boxed]


def read(folder: Path) -> list[Boxed]:
    """Return the photos of boxes.csv."""
    with (folder / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    edges = ("left", "top", "right", "bottom")
    return [Boxed(folder / row["path"], row["label"], tuple(float(row[edge]) for edge in edges)) for row in rows]  # type: ignore[arg-type]


def compose(rng: np.random.Generator, photos: list[Boxed], count: int) -> Composed:
    """Return a picture with `count` cars, drawn by `rng`."""
    while True:
        chosen = [photos[i] for i in rng.choice(len(photos), count, replace=False)]
        crops = [boxed.car() for boxed in chosen]
        boxes = _places(rng, [crop.width / crop.height for crop in crops])
        if boxes is not None:
            break
    picture = _surroundings(photos[rng.integers(len(photos))])
    for crop, box in sorted(zip(crops, boxes, strict=True), key=lambda pair: pair[1][3]):  # who stands lower is nearer
        left, top, right, bottom = (round(edge * side) for edge, side in zip(box, 2 * SIZE, strict=True))
        picture.paste(crop.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
    return Composed(picture, np.clip(boxes, 0, 1), chosen)


def _places(rng: np.random.Generator, shapes: list[float]) -> NDArray[np.float64] | None:
    """Return a box for each car of these proportions, which may reach over the edge; None if no room was found."""
    aside = rng.random() < 0.25  # the main car is off the centre, and the others are small
    width = rng.uniform(0.3, 0.55) if len(shapes) < 4 else rng.uniform(0.28, 0.42)
    middle = (rng.uniform(0.3, 0.7) if aside else rng.normal(0.5, 0.07), rng.normal(0.56, 0.05))
    boxes = [_box(middle, width, shapes[0])]
    neighbour = not aside and rng.random() < 0.4  # one is as large, at the edge, and partly outside
    for number, shape in enumerate(shapes[1:]):
        box = _place(rng, boxes, width, shape, edge=neighbour and number == 0, most=0.6 if aside else 0.85)
        if box is None:
            return None
        boxes.append(box)
    return np.array(boxes)


def _place(rng: np.random.Generator, taken: list[Any], main: float, shape: float, *, edge: bool, most: float) -> Any:
    for _ in range(_TRIES):
        if edge:
            width = main * rng.uniform(0.9, 1.25)
            x = rng.choice([0.0, 1.0]) + rng.uniform(-0.1, 0.1) * width
            box = _box((x, rng.normal(0.56, 0.06)), width, shape)
        else:
            width = main * rng.uniform(0.35, most)
            box = _box((rng.uniform(width / 2, 1 - width / 2), rng.uniform(0.35, 0.8)), width, shape)
        if (
            all(_covered(box, other) < 0.1 and _covered(other, box) < 0.1 for other in taken)
            and box[1] >= 0
            and box[3] <= 1
        ):
            return box
    return None


def _box(middle: tuple[float, float], width: float, shape: float) -> tuple[float, float, float, float]:
    height = width / shape * SIZE[0] / SIZE[1]
    return middle[0] - width / 2, middle[1] - height / 2, middle[0] + width / 2, middle[1] + height / 2


def _covered(box: Any, other: Any) -> float:
    """Return the share of a box that another covers."""
    sides = [min(box[i + 2], other[i + 2]) - max(box[i], other[i]) for i in (0, 1)]
    return max(sides[0], 0) * max(sides[1], 0) / ((box[2] - box[0]) * (box[3] - box[1]))


def _surroundings(boxed: Boxed) -> Image.Image:
    image = boxed.image()
    _, top, _, bottom = (round(edge * side) for edge, side in zip(boxed.box, 2 * image.size, strict=True))
    picture = Image.new("RGB", SIZE, (128, 130, 135))
    half = round(SIZE[1] * 0.5)
    if top > 8:
        picture.paste(image.crop((0, 0, image.width, top)).resize((SIZE[0], half)), (0, 0))
    if image.height - bottom > 8:
        below = image.crop((0, bottom, image.width, image.height)).resize((SIZE[0], SIZE[1] - half))
        picture.paste(below, (0, half))
    return picture
