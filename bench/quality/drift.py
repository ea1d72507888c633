"""Measure the drift of photos as people take them against those of the gallery: `python -m bench.quality.drift MANIFEST PHOTOS`.

Photos are asked for through the pair that ships: test photos of Stanford Cars, which are like the dev photos that the gallery's
calibration was fitted to, a half of them blurred, and whole photos of ../shared/data, of cars that the gallery knows by their make or not at all. Of
each group the population stability index of the nearest similarities is told, as `vmmr_query_drift` has it, and how many are `unknown`.
"""

import argparse
import csv
import io
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import vmmr
from PIL import Image, ImageFilter

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from bench.lib.servers import pair
from search_svc.index.version import IndexVersion
from search_svc.serving.query_drift import stability_index

DATA = ROOT.parent / "shared/data/wild"
OUT = RESULTS / "drift.json"
WILD = ("audi", "toyota_innova", "mahindra_scorpio")
_BLUR_PX = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--most", type=int, default=300, metavar="N", help="photos of a group")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    fitted = IndexVersion.open(ROOT / "models/stanford-cars", verify=False).calibration
    assert fitted
    with ExitStack() as stack:
        embedder, search = stack.enter_context(pair("--log-level", "warning"))
        client = stack.enter_context(vmmr.Client(embedder.address, search.address, timeout_s=120))
        found = {
            name: measured(client, photos, fitted.nearest)
            for name, photos in groups(args.manifest, args.photos, args.most).items()
        }
    out: Path = args.out
    out.write_text(json.dumps({"machine": machine.describe(), "groups": found}, indent=1) + "\n")
    tables(out)


def groups(manifest: Path, photos: Path, most: int) -> dict[str, Iterable[bytes | Path]]:
    """Return photos by the name of their group, at most so many of each, spread evenly over all."""
    with manifest.open(newline="") as file:
        test = [photos / row["path"] for row in csv.DictReader(file) if row["split"] == "test"]
    test = spread(test, most)
    wild = {name: spread(sorted((DATA / name).glob("*.jpg")), most) for name in WILD}
    return {"test": test, "test, blurred": (blurred(path) for path in test), **wild}


def spread(paths: Sequence[Path], most: int) -> Sequence[Path]:
    return [paths[place] for place in np.unique(np.linspace(0, len(paths) - 1, most).astype(int)).tolist()]


def blurred(path: Path) -> bytes:
    made = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").filter(ImageFilter.GaussianBlur(_BLUR_PX)).save(made, "JPEG")
    return made.getvalue()


def measured(client: vmmr.Client, photos: Iterable[bytes | Path], deciles: Sequence[float]) -> dict[str, Any]:
    answers = [outcome.result() for outcome in client.identify_many(vmmr.Photo(photo) for photo in photos)]
    cars = [each for each in answers if not each.no_car_found]
    nearest = [each.neighbours[0].score for each in cars]
    return {
        "photos": len(answers),
        "no_car": round(100 * (1 - len(cars) / len(answers)), 1),
        "unknown": round(100 * sum(each.verdict == "unknown" for each in cars) / len(cars), 1),
        "median": round(float(np.median(nearest)), 3),
        "drift": round(stability_index(nearest, deciles), 3),
    }


def tables(stored: Path = OUT) -> None:
    """Print a Markdown table."""
    print("| photos | | no car, % | `unknown`, % | nearest similarity, median | drift |\n|---|---|---|---|---|---|")
    for name, found in json.loads(stored.read_text())["groups"].items():
        print(
            f"| {name} | {found['photos']} | {found['no_car']} | {found['unknown']} | {found['median']} | {found['drift']} |"
        )


if __name__ == "__main__":
    main()
