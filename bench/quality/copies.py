"""How many copies the audit's comparison of pixels confirms, and how many different photos: `python -m bench.quality.copies DIR...`.

Of photos from the folders, drawn at random, copies are made as `bench.quality.audit` plants them. Of all pairs of photos whose grey
thumbnails are alike enough to be compared, it counts those that the pixels confirm; with `--sheet FILE` these and the others can be looked at.
"""

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from vmmr.photo_folders import find

from bench.lib import machine
from bench.quality.audit import CHANGES
from search_svc.audit import pixels, thumbnails
from search_svc.audit.copies import ALIKE

PLANTED = 140
_ROUGHLY = 0.8
"""Pairs below this rough likeness are not compared: the audit compares neighbours, this bench all pairs."""


def main() -> None:
    args = arguments()
    paths = [folder / path for folder in args.folders for path in find(folder).photos]
    confirmed, planted = planted_copies(paths, random.Random(0))
    pairs = alike_pairs(paths)
    same = [pixels.same(pixels.read(one), pixels.read(other)) for one, other in pairs]
    result = {
        "machine": machine.describe(),
        "photos": len(paths),
        "planted": dict(planted),
        "planted and confirmed": dict(confirmed),
        "pairs alike in grey": len(pairs),
        "pairs confirmed": sum(same),
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(f"{json.dumps(result, indent=2)}\n")
    if args.sheet:
        sheet([pair for pair, agree in zip(pairs, same, strict=True) if agree], args.sheet.with_suffix(".same.png"))
        sheet(
            [pair for pair, agree in zip(pairs, same, strict=True) if not agree], args.sheet.with_suffix(".other.png")
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path)
    return parser.parse_args()


def planted_copies(paths: Sequence[Path], rng: random.Random) -> tuple[Counter[str], Counter[str]]:
    """Return how many copies are found by thumbnails and pixels, and how many were made, by what was done to them."""
    confirmed: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "copy.jpg"
        for number, path in enumerate(rng.sample(paths, PLANTED)):
            name, change = list(CHANGES.items())[number % len(CHANGES)]
            with Image.open(path) as photo:
                copy, quality = change(photo.convert("RGB"), rng)
            copy.save(file, quality=quality)
            planted[name] += 1
            confirmed[name] += pixels.same(pixels.read(path), pixels.read(file))
    return confirmed, planted


def alike_pairs(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    pictures = np.stack([thumbnails.read(path) for path in paths])
    flat = pictures.reshape(len(paths), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)
    ones, others = np.nonzero(np.triu(flat @ flat.T >= _ROUGHLY, 1))
    return [
        (paths[one], paths[other])
        for one, other in zip(ones.tolist(), others.tolist(), strict=True)
        if thumbnails.alike(pictures[one], pictures[other]) >= ALIKE
    ]


def sheet(pairs: Sequence[tuple[Path, Path]], file: Path) -> None:
    """Write the pairs side by side, six in a row."""
    wide, high, across = 150, 110, 6
    canvas = Image.new("RGB", (across * (2 * wide + 10), max(1, -(-len(pairs) // across)) * (high + 4)), "white")
    for number, pair in enumerate(pairs):
        for side, path in enumerate(pair):
            with Image.open(path) as photo:
                small = photo.convert("RGB").resize((wide, high))
            canvas.paste(small, (number % across * (2 * wide + 10) + side * wide, number // across * (high + 4)))
    canvas.save(file)


if __name__ == "__main__":
    main()
