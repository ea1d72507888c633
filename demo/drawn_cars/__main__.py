"""Draws a folder of photos: `python -m demo.drawn_cars --out DIR`."""

import argparse
from pathlib import Path

from demo.drawn_cars import LABELS
from demo.drawn_cars.collection import MAX_PHOTOS, provide
from svckit import cli


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.drawn_cars", description="Draw photos of cars, a folder a class."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the folders go")
    parser.add_argument("--classes", type=int, default=len(LABELS), metavar="N", help=f"1 to {len(LABELS)} (default)")
    parser.add_argument("--photos", type=int, default=20, metavar="N", help=f"of each class, 1 to {MAX_PHOTOS} (20)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="other photos of the same cars (1)")
    args = parser.parse_args()
    provide(args.out, classes=args.classes, photos=args.photos, seed=args.seed)


if __name__ == "__main__":
    cli.run(main, "drawn_cars")
