"""What a detector finds: `python -m bench.quality.detector BUNDLE ... [--without-cars DIR]`, the first bundle the reference.

- boxed: of 1,622 whole photos with a known box, the share whose main car overlaps it by more than 0.5 and 0.7 (intersection over union),
  by the share of the photo that the box covers;
- wild: the share of 2,075 photos in which a car is found; and how the boxes of the other bundles overlap the reference's;
- composed: of pictures of 2, 3 and 5 real cars (bench/lib/composed.py), the share of the cars that are found, boxes of no car, and
  whether the main one is the right one: by the rule, and if it were simply the largest;
- without cars: false cars in pictures that show none: drawn ones (noise, gradients, textures), what is beside the box in photos of
  boxed, and those of `bench.quality.not_cars`, if their folder is given.

The photos are those of ../shared/data. No bundle's settings are fitted here: half of boxed was looked at when they were chosen, so the
composed pictures are made of the other half.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.lib import composed, machine
from bench.lib.composed import Boxed
from bench.lib.paths import RESULTS, ROOT
from embedder_svc.network import cars
from embedder_svc.network.cars import Car
from embedder_svc.network.detector import Detector, View
from embedder_svc.network.model import Model

DATA = ROOT.parent / "shared/data"
SIZES = (0.0, 0.25, 0.4, 0.55, 1.0)
COMPOSED = 150
SEED = 11

Found = list[list[Car]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--without-cars", type=Path, metavar="DIR", help="pictures that show no car")
    parser.add_argument("--out", type=Path, default=RESULTS / "detector.json", metavar="JSON")
    args = parser.parse_args()
    boxed, wild = composed.read(DATA / "boxed"), sorted((DATA / "wild").glob("*/*.jpg"))
    reference: Found | None = None
    report: dict[str, Any] = {"machine": machine.describe(("onnxruntime", "pillow", "numpy"))}
    for path in args.bundles:
        detector = Model.open(path, device="cpu", threads=1).detector
        assert detector is not None, path
        on_wild = [look(detector, opened(photo)) for photo in wild]
        reference = reference or on_wild
        report[path.name] = {
            "boxed": of_boxed(boxed, [look(detector, photo.image()) for photo in boxed]),
            "wild": of_wild(on_wild, reference),
            "composed": {count: of_composed(detector, boxed, count) for count in (2, 3, 5)},
            "without_cars": of_pictures_without(detector, boxed, args.without_cars),
        }
        print(path.name, json.dumps(report[path.name], indent=1))
    args.out.write_text(json.dumps(report, indent=1) + "\n")


def opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def look(detector: Detector, image: Image.Image) -> list[Car]:
    side = detector.info.input_size
    return detector.find([View(np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)), image.size)])[0]


def boxes(found: Sequence[Car]) -> NDArray[np.float32]:
    return np.array([astuple(car.box) for car in found], np.float32).reshape(-1, 4)


def overlap(found: Sequence[Car], box: Sequence[float]) -> float:
    """Return how the main car overlaps a box; 0 if there is none."""
    return float(cars.overlaps(np.array(box, np.float32), boxes(found[:1])).sum())


def of_boxed(photos: Sequence[Boxed], found: Found) -> dict[str, Any]:
    overlaps = np.array([overlap(each, photo.box) for photo, each in zip(photos, found, strict=True)])
    shares = np.array([(b[2] - b[0]) * (b[3] - b[1]) for b in (photo.box for photo in photos)])
    rows = {"all": np.full(len(photos), fill_value=True)}
    for least, most in pairwise(SIZES):
        rows[f"{least:.0%} to {most:.0%} of the photo"] = (shares >= least) & (shares < most + (most == 1))
    return {name: {"photos": int(row.sum()), **above(overlaps[row])} for name, row in rows.items()}


def above(overlaps: NDArray[np.float64]) -> dict[str, float]:
    return {f"above_{bound}": round(float((overlaps > bound).mean()), 4) for bound in (0.5, 0.7)}


def of_wild(found: Found, reference: Found) -> dict[str, Any]:
    pairs = [(ours, theirs) for ours, theirs in zip(found, reference, strict=True) if ours and theirs]
    overlaps = np.array([overlap(ours, astuple(theirs[0].box)) for ours, theirs in pairs])
    return {
        "photos": len(found),
        "found": round(sum(map(bool, found)) / len(found), 4),
        "as_reference_0.9": round(float((overlaps >= 0.9).mean()), 4),
        "several": round(sum(len(each) > 1 for each in found) / len(found), 4),
    }


def of_composed(detector: Detector, photos: list[Boxed], count: int) -> dict[str, float]:
    rng = np.random.default_rng(SEED + count)
    held_out = [photos[i] for i in np.random.default_rng(5).permutation(len(photos))[len(photos) // 2 :]]
    pictures = [composed.compose(rng, held_out, count) for _ in range(COMPOSED)]
    found_cars, extra, main, largest = [], [], [], []
    for picture in pictures:
        found = look(detector, picture.image)
        known = picture.boxes.astype(np.float32)
        pairs = np.array([cars.overlaps(box, boxes(found)) for box in known]).reshape(len(known), len(found))
        found_cars += list((pairs > 0.5).any(axis=1))
        extra.append(int((~(pairs > 0.5).any(axis=0)).sum()))
        main.append(overlap(found, picture.boxes[0]) > 0.5)
        by_size = sorted(found, key=lambda car: -(car.box.right - car.box.left) * (car.box.bottom - car.box.top))
        largest.append(overlap(by_size, picture.boxes[0]) > 0.5)
    return {
        "pictures": COMPOSED,
        "cars_found": round(float(np.mean(found_cars)), 4),
        "boxes_of_no_car": round(float(np.mean(extra)), 3),
        "main_right": round(float(np.mean(main)), 4),
        "main_right_if_largest": round(float(np.mean(largest)), 4),
    }


def of_pictures_without(detector: Detector, photos: Sequence[Boxed], folder: Path | None) -> dict[str, Any]:
    kinds = {"drawn": drawn(), "beside the car": beside(photos)}
    if folder:
        kinds["photos"] = (opened(path) for path in sorted(folder.glob("*/*")))
    report: dict[str, Any] = {}
    for name, pictures in kinds.items():
        found = [look(detector, picture) for picture in pictures]
        scores = [round(each[0].score, 3) for each in found if each]
        report[name] = {"pictures": len(found), "with_a_false_car": len(scores), "scores": sorted(scores)}
    return report


def drawn() -> Iterator[Image.Image]:
    """Yield noise, gradients, stripes, checks and skies."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[0:300, 0:400] / 300
    for number in range(12):
        colours = rng.uniform(0, 255, (2, 3))
        shade = (np.cos(number) * x + np.sin(number) * y) % 1
        waves = 0.5 + 0.5 * np.sin((5 + 3 * number) * (x * np.cos(number) + y * np.sin(number)))
        checks = (np.floor(x * (3 + number)) + np.floor(y * (3 + number))) % 2
        soft = np.asarray(
            Image.fromarray(rng.integers(0, 256, (4 + number, 5 + number), np.uint8)).resize(
                (400, 300), Image.Resampling.BICUBIC
            )
        )
        for mask in (shade, waves, checks, soft / 255, rng.random((300, 400))):
            yield Image.fromarray(
                (colours[0] + (colours[1] - colours[0]) * mask[..., None]).clip(0, 255).astype(np.uint8)
            )


def beside(photos: Sequence[Boxed]) -> Iterator[Image.Image]:
    """Yield the larger of what is above and below the box, where that is a fifth of the photo or more; other cars may be in it."""
    for photo in photos[::4]:
        _, top, _, bottom = photo.box
        if max(top, 1 - bottom) < 0.2:
            continue
        image = photo.image()
        area = (
            (0, 0, image.width, round(top * image.height))
            if top > 1 - bottom
            else (0, round(bottom * image.height), *image.size)
        )
        yield image.crop(area)


if __name__ == "__main__":
    main()
