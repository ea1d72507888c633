"""Ask the pair that ships for blurred, tiny, noisy and dark photos: `python -m bench.quality.worn MANIFEST PHOTOS`.

Photos of one split are worn, and asked for as a user would, through both services: whole, and cut to the main car. Of each kind of
wear it is told how many get the right label, how many are told `unknown`, and how many get a wrong label without being told so,
which is the fault. A head is fitted to blurred, small, noisy and badly compressed copies (embedder_svc/exporting/worn.py), made of
other photos; the other kinds here it has never seen.
"""

import argparse
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import vmmr
from PIL import Image, ImageEnhance, ImageFilter

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from bench.lib.servers import serving

MODEL, GALLERY = ROOT / "models/resnet50-cars-int8", ROOT / "models/stanford-cars"
OUT = RESULTS / "worn.json"
QUIET = ("--log-level", "warning")
SEED = 4

Wear = Callable[[Image.Image], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="BUNDLE")
    parser.add_argument("--gallery", type=Path, default=GALLERY, metavar="INDEX")
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=4, metavar="N", help="take every Nth photo of the split")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    with args.manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == args.split][:: args.every]
    paths, labels = [args.photos / row["path"] for row in rows], [row["label"] for row in rows]
    with ExitStack() as stack:
        embedder = stack.enter_context(serving("embedder_svc", "--model", args.model, *QUIET)).address
        search = stack.enter_context(serving("search_svc", "--index", args.gallery, *QUIET)).address
        client = stack.enter_context(vmmr.Client(embedder, search, timeout_s=60))
        found = {name: asked(client, paths, labels, wear) for name, wear in KINDS.items()}
    report = {"machine": machine.describe(), "split": args.split, "photos": len(rows), "kinds": found}
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    tables(args.out)


def asked(client: vmmr.Client, paths: Sequence[Path], labels: Sequence[str], wear: Wear) -> dict[str, Any]:
    """Return the shares, in percent, of what is answered to worn copies of photos, asked for in either way."""
    result = {}
    for subject in ("whole", "main_car"):
        photos = (vmmr.Photo(content, subject=subject) for content in worn(paths, wear))
        answers = [outcome.result() for outcome in client.identify_many(photos)]
        result[subject] = shares(answers, labels)
    return result


def worn(paths: Sequence[Path], wear: Wear) -> Iterator[bytes]:
    for path in paths:
        with Image.open(path) as image:
            yield encoded(wear(image.convert("RGB")))


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def shares(answers: Sequence[vmmr.Identification], labels: Sequence[str]) -> dict[str, float]:
    right = np.array(
        [
            answer.answer is not None and answer.answer.label == label
            for answer, label in zip(answers, labels, strict=True)
        ]
    )
    unknown = np.array([answer.verdict == "unknown" for answer in answers])
    percent = {"right": right, "unknown": unknown, "wrong_and_not_unknown": ~right & ~unknown}
    return {name: round(100 * float(of.mean()), 1) for name, of in percent.items()}


def blurred(share: float) -> Wear:
    """Blur by a Gaussian whose deviation is this share of the photo's longer side."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def thumbnail(side: int) -> Wear:
    """Make the longer side this many pixels, as thumbnails are."""
    return lambda image: image.resize([max(1, round(side * length / max(image.size))) for length in image.size])


def noisy(deviation: float) -> Wear:
    rng = np.random.default_rng(SEED)
    return lambda image: of_pixels(np.asarray(image) + rng.normal(0, deviation, (*image.size[::-1], 3)))


def compressed(quality: int) -> Wear:
    def compress(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return compress


def moved(share: float) -> Wear:
    """Smear along the rows, by this share of the photo's width."""

    def move(image: Image.Image) -> Image.Image:
        steps = range(max(1, round(share * image.width)))
        return of_pixels(np.mean([np.roll(np.asarray(image), step, axis=1) for step in steps], axis=0))

    return move


def half_hidden(image: Image.Image) -> Image.Image:
    pixels = np.array(image)
    pixels[:, : image.width // 2] = 128
    return of_pixels(pixels)


def of_pixels(pixels: Any) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


KINDS: dict[str, Wear] = {
    "as it is": lambda image: image,
    **{f"blur, {100 * share:g} % of the longer side": blurred(share) for share in (0.003, 0.006, 0.012, 0.025)},
    **{f"thumbnail of {side} pixels": thumbnail(side) for side in (16, 32, 64, 96, 128)},
    **{f"noise, deviation {deviation} of 255": noisy(deviation) for deviation in (15, 30, 60)},
    "JPEG of quality 4": compressed(4),
    "smeared by 6 % of the width": moved(0.06),
    "an eighth of the light": lambda image: ImageEnhance.Brightness(image).enhance(1 / 8),
    "a fifth of the contrast": lambda image: ImageEnhance.Contrast(image).enhance(1 / 5),
    "left half hidden": half_hidden,
}


def tables(stored: Path = OUT) -> None:
    """Print a Markdown table of right / unknown / wrong and not unknown, in percent."""
    print("| photo | whole: right / unknown / wrong and not told so | main car |\n|---|---|---|")
    for name, found in json.loads(stored.read_text())["kinds"].items():
        cells = (" / ".join(f"{share:.0f}" for share in found[subject].values()) for subject in ("whole", "main_car"))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
