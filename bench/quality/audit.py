"""What `vmmr-search audit` finds of what was planted: `python -m bench.quality.audit EMBEDDINGS --photos DIR --model BUNDLE`.

EMBEDDINGS are of the photos in DIR, by the model BUNDLE. Copies, wrong labels and pictures of no car are planted in a
temporary directory: copies encoded again, rescaled, cropped or brighter, half of them with another label; photos with
another label, half of the same make; drawings, and close-ups of a photo's tenth. What is found and was not planted counts
as wrong, though the collection has real copies and wrong labels: precision is more than what is told here.
"""

import argparse
import csv
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from search_svc.dataset import photo_list as manifest
from search_svc.dataset.embeddings import Embeddings
from search_svc.dataset.photo_list import Photo
from search_svc.voting.labels import Label
from svckit.artifact import write_manifest

COPIES, WRONG, DRAWN, PARTS = 280, 320, 60, 60
SEED = 0


@dataclass(frozen=True, eq=False)
class Plant:
    photo: Photo
    """Where it is planted, and as what."""
    kind: str
    detail: str
    source: Photo | None = None
    picture: Image.Image | None = None
    """None if the source's own file is planted."""
    quality: int = 85


def main() -> None:
    args = arguments()
    rng = random.Random(SEED)
    collection = Embeddings.open(args.embeddings)
    plants = list(planted(collection.photos, args.photos, rng))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        build_collection(root, collection, plants, args.photos, args.model)
        command = ["audit", root / "embeddings", "--photos", root / "photos", "--out", root / "audit"]
        subprocess.run([sys.executable, "-m", "search_svc", *map(str, command)], check=True)
        with (root / "audit" / "audit.csv").open(newline="") as file:
            report(plants, list(csv.DictReader(file)), len(collection.photos))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    return parser.parse_args()


def planted(photos: Sequence[Photo], folder: Path, rng: random.Random) -> Iterator[Plant]:
    labels = sorted({photo.label for photo in photos}, key=lambda label: label.label)
    chosen = rng.sample(photos, COPIES + WRONG + PARTS)
    for number, source in enumerate(chosen[:COPIES]):
        name, change = list(CHANGES.items())[number % len(CHANGES)]
        with Image.open(folder / source.path) as picture:
            changed, quality = change(picture.convert("RGB"), rng)
        label = source.label if number % 2 else another(source.label, labels, rng)
        yield Plant(place(label, f"copy-{number}", rng), "copy", name, source, changed, quality)
    for number, source in enumerate(chosen[COPIES : COPIES + WRONG]):
        alike = [label for label in labels if label.make == source.label.make]
        same = number % 2 == 0 and len(alike) > 1
        label = another(source.label, alike if same else labels, rng)
        seen = "unseen" if source.split.startswith("unseen") else "train" if source.split == "train" else "held out"
        detail = f"{seen}, {'same' if label.make == source.label.make else 'other'} make"
        yield Plant(replace(place(label, f"wrong-{number}", rng), split=source.split), "label", detail, source)
    for number in range(DRAWN):
        draw = DRAWINGS[number % len(DRAWINGS)]
        yield Plant(place(rng.choice(labels), f"drawn-{number}", rng), "odd", draw.__name__, picture=draw(rng))
    for number, source in enumerate(chosen[COPIES + WRONG :]):
        with Image.open(folder / source.path) as picture:
            close_up = cut(picture.convert("RGB"), 0.3, rng).resize((300, 225))
        yield Plant(place(source.label, f"part-{number}", rng), "odd", "close-up", picture=close_up)


def place(label: Label, name: str, rng: random.Random) -> Photo:
    return Photo(f"{label.label}/planted-{name}.jpg", label, rng.choice(manifest.SPLITS))


def another(label: Label, labels: Sequence[Label], rng: random.Random) -> Label:
    return rng.choice([other for other in labels if other != label])


def cut(picture: Image.Image, share: float, rng: random.Random) -> Image.Image:
    width, height = int(picture.width * share), int(picture.height * share)
    left, top = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))


def rescaled(picture: Image.Image, share: float) -> Image.Image:
    return picture.resize((int(picture.width * share), int(picture.height * share)))


Change = Callable[[Image.Image, random.Random], tuple[Image.Image, int]]
CHANGES: dict[str, Change] = {
    "quality 40": lambda picture, _: (picture, 40),
    "quality 20": lambda picture, _: (picture, 20),
    "60 % of the size": lambda picture, _: (rescaled(picture, 0.6), 85),
    "cropped by 5 %": lambda picture, rng: (cut(picture, 0.95, rng), 85),
    "cropped by 10 %": lambda picture, rng: (cut(picture, 0.9, rng), 85),
    "80 %, cropped by 5 %, quality 60": lambda picture, rng: (cut(rescaled(picture, 0.8), 0.95, rng), 60),
    "brighter": lambda picture, _: (picture.point(lambda value: min(255, int(value * 1.15 + 8))), 80),
}


def colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def interior(rng: random.Random) -> Image.Image:
    """Draw a dashboard with dials, a screen and a steering wheel."""
    picture = Image.new("RGB", (300, 225), colour(rng))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 75, 300, 225), fill=(40, 40, 45))
    for _ in range(3):
        x, y, r = rng.randint(40, 260), rng.randint(80, 185), rng.randint(15, 35)
        pen.ellipse((x - r, y - r, x + r, y + r), outline=(220, 220, 220), width=3)
        pen.line((x, y, x + r // 2, y - r // 2), fill=(255, 0, 0), width=2)
    x, r = rng.randint(80, 220), rng.randint(50, 90)
    pen.ellipse((x - r, 195 - r, x + r, 195 + r), outline=(10, 10, 10), width=14)
    pen.rectangle((120, 90, 190, 130), fill=colour(rng))
    return picture


def text(rng: random.Random) -> Image.Image:
    picture = Image.new("RGB", (300, 225), (245, 245, 240))
    pen = ImageDraw.Draw(picture)
    for y in range(10, 215, 14):
        pen.text((10, y), "".join(rng.choice("abcdefgh ijklmno prstu") for _ in range(45)), fill=(20, 20, 20))
    return picture


def landscape(rng: random.Random) -> Image.Image:
    picture = Image.new("RGB", (300, 225), (120, 170, 230))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 112, 300, 225), fill=(60, 130, 50))
    for _ in range(8):
        x, r = rng.randint(0, 300), rng.randint(10, 40)
        pen.rectangle((x - 3, 107, x + 3, 112 + r), fill=(90, 60, 30))
        pen.ellipse((x - r, 112 - 2 * r, x + r, 112), fill=(30, 90 + rng.randrange(60), 30))
    return picture


def blocks(rng: random.Random) -> Image.Image:
    picture = Image.new("RGB", (300, 225), colour(rng))
    pen = ImageDraw.Draw(picture)
    for _ in range(30):
        x, y = rng.randint(0, 300), rng.randint(0, 225)
        pen.rectangle((x, y, x + rng.randint(5, 90), y + rng.randint(5, 90)), fill=colour(rng))
    return picture


DRAWINGS = (interior, text, landscape, blocks)


def build_collection(root: Path, collection: Embeddings, plants: Sequence[Plant], folder: Path, model: Path) -> None:
    """Write photos and embeddings. Plants that have pixels of their own are embedded anew."""
    drawn = [plant for plant in plants if plant.picture]
    moved = {plant.source.path: plant.photo for plant in plants if plant.source and not plant.picture}
    for plant in drawn:
        save(plant, root / "photos" / plant.photo.path)
    manifest.write(root / "drawn.csv", [plant.photo for plant in drawn])
    embed = ["embed", root / "drawn.csv", "--photos", root / "photos", "--model", model, "--out", root / "drawn"]
    subprocess.run([sys.executable, "-m", "embedder_svc", *map(str, embed)], check=True)
    new = Embeddings.open(root / "drawn")
    if new.model != collection.model:
        sys.exit("the embeddings are of another model")
    photos = [moved.get(photo.path, photo) for photo in collection.photos]
    for photo, source in zip(photos, collection.photos, strict=True):
        path = root / "photos" / photo.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to((folder / source.path).resolve())
    write_embeddings(root / "embeddings", new, np.vstack([collection.matrix, new.matrix]), [*photos, *new.photos])


def save(plant: Plant, path: Path) -> None:
    assert plant.picture
    path.parent.mkdir(parents=True, exist_ok=True)
    plant.picture.save(path, quality=plant.quality)


def write_embeddings(directory: Path, like: Embeddings, matrix: np.ndarray, photos: Sequence[Photo]) -> None:
    directory.mkdir()
    np.save(directory / "embeddings.npy", matrix)
    manifest.write(directory / "items.csv", photos)
    fields = {"kind": "embeddings", "model": like.model, "model_name": like.model_name, "normalized": like.normalized}
    write_manifest(directory, {**fields, "dimension": matrix.shape[1], "count": len(matrix)})


def report(plants: Sequence[Plant], findings: Sequence[dict[str, str]], photos: int) -> None:
    """Return the recall of each kind of plant, and which share of what is listed at several scores was planted."""
    moved = {plant.source.path: plant.photo.path for plant in plants if plant.kind == "label" and plant.source}
    copied = {plant.photo.path for plant in plants if plant.kind == "copy"}
    for kind in ("copy", "label", "odd"):
        ours = [plant for plant in plants if plant.kind == kind]
        rows = [row for row in findings if row["kind"] in ((kind, "alike") if kind == "copy" else (kind,))]
        scores = {}
        for row in rows:
            names = {row["path"], row["other"]} if kind == "copy" else {row["path"]}
            for plant in ours:
                pair = {plant.photo.path}
                if kind == "copy" and plant.source:
                    pair.add(moved.get(plant.source.path, plant.source.path))
                if names == pair:
                    scores[plant] = float(row["score"])
        # A planted copy that has another label is a wrong label too: it counts neither way.
        wrong = [float(row["score"]) for row in rows if kind == "copy" or row["path"] not in copied]
        print(f"\n{kind}: {len(ours)} planted among {photos} photos")
        for least in sorted({min([*wrong, 1.0]), 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7}):
            hits, listed = sum(score >= least for score in scores.values()), sum(score >= least for score in wrong)
            if listed and least >= min(wrong):
                print(
                    f"  score {least:.2f}: listed {listed:4}, precision {hits / listed:.3f}, recall {hits / len(ours):.3f}"
                )
        by_detail = defaultdict(list)
        for plant in ours:
            by_detail[plant.detail].append(plant in scores)
        for detail, hit in sorted(by_detail.items()):
            print(f"    {detail}: {sum(hit)} of {len(hit)}")


if __name__ == "__main__":
    main()
