"""A new car from a handful of photos: `python -m bench.quality.enrolment PHOTOS`, the folder `train` of Stanford Cars. Under five minutes.

The gallery that ships, less the photos of some classes, is built and calibrated anew, without anything of theirs, and served
beside the model that ships. Then 1, 2, 5 and 10 photos of each of those classes are added through AddItems, and their test
photos are asked for: how many get the right label and make, and how many are told as unknown. Which photos are added is drawn
several times; what was added is deleted in between. The classes are drawn by a seed that was chosen before anything was
measured, and nothing is fitted on their photos.

The shipped network was trained on all 196 classes, on the very photos that are added here: the gallery has not seen
these cars, the network has. So the figures are those of a car of a kind that the network knows.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import vmmr
from numpy.typing import NDArray

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from bench.lib.servers import serving
from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.fitting.held_out import HeldOutPhotos
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import parse

MODEL, GALLERY = ROOT / "models/resnet50-cars-int8", ROOT / "models/stanford-cars"
CLASSES, SEED = 20, 0
ENROLLED, DRAWS = (0, 1, 2, 5, 10), 5
OUT = RESULTS / "enrolment.json"
QUIET = ("--log-level", "warning")
_BATCH = 32
_BOOTSTRAPS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        work = Path(directory)
        embedder = stack.enter_context(serving("embedder_svc", "--model", MODEL, *QUIET)).address
        photos = split(args.photos, work)
        gallery = IndexVersion.open(GALLERY)
        new = drawn(gallery)
        with vmmr.Client(embedder, timeout_s=60) as client:
            held = [each for each in photos if each.split == "dev" and each.label not in new]
            held_out = [each for each in photos if each.split == "test"]
            build(work / "index", gallery, new, *with_car(held, embedded(client, args.photos, held)))
            tests = TestPhotos(held_out, embedded(client, args.photos, held_out), new)
        search = stack.enter_context(serving("search_svc", "--index", work / "index", *QUIET)).address
        with vmmr.Client(embedder, search, timeout_s=60) as client:
            report = measured(client, gallery, new, tests)
    report = {"machine": machine.describe(), "classes": sorted(new), "draws": DRAWS, "seed": SEED} | report
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


def tables() -> None:
    """Print what is stored, as docs/live.md has it."""
    print(table(json.loads((RESULTS / "enrolment.json").read_text())))


@dataclass(frozen=True)
class Photo:
    path: str
    label: str
    split: str


@dataclass(frozen=True)
class TestPhotos:
    """Test photos: of the classes that are new, and of the others."""

    photos: Sequence[Photo]
    embeddings: vmmr.Embeddings
    new_labels: frozenset[str]

    def part(self, *, new: bool) -> tuple[list[str], vmmr.Embeddings]:
        rows = [row for row, photo in enumerate(self.photos) if (photo.label in self.new_labels) == new]
        return [self.photos[row].label for row in rows], taken(self.embeddings, rows)


def split(photos: Path, work: Path) -> list[Photo]:
    """Divide the photos as those of the gallery that ships were divided."""
    manifest = work / "manifest.csv"
    command = [sys.executable, "-m", "search_svc", "split", photos, "--out", manifest]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with manifest.open(newline="") as file:
        return [Photo(row["path"], row["label"], row["split"]) for row in csv.DictReader(file)]


def drawn(gallery: IndexVersion) -> frozenset[str]:
    labels = [label.label for label in gallery.items.labels]
    return frozenset(np.random.default_rng(SEED).choice(labels, CLASSES, replace=False).tolist())


def embedded(client: vmmr.Client, root: Path, photos: Sequence[Photo]) -> vmmr.Embeddings:
    paths = [root / photo.path for photo in photos]
    found = [client.embed(paths[start : start + _BATCH]) for start in range(0, len(paths), _BATCH)]
    parts = tuple(part for each in found for part in each.parts or ())
    return vmmr.Embeddings(found[0].model, np.concatenate([each.vectors for each in found]), parts=parts or None)


def taken(embeddings: vmmr.Embeddings, rows: Sequence[int]) -> vmmr.Embeddings:
    """Return some rows, with what of each photo was embedded: a photo without a car is unknown."""
    parts = embeddings.parts and tuple(embeddings.parts[row] for row in rows)
    return vmmr.Embeddings(embeddings.model, embeddings.vectors[list(rows)], parts=parts)


def with_car(photos: Sequence[Photo], embeddings: vmmr.Embeddings) -> tuple[list[Photo], NDArray[np.float32]]:
    """Return the photos in which a car was found, and their embeddings: `build` fits to no others."""
    parts = embeddings.parts or [None] * len(photos)
    rows = [row for row, part in enumerate(parts) if not (part and part.cut.no_car_found)]
    return [photos[row] for row in rows], embeddings.vectors[rows]


def build(
    index: Path, gallery: IndexVersion, new: frozenset[str], held: Sequence[Photo], vectors: NDArray[np.float32]
) -> None:
    """Build the gallery that ships without the new classes, calibrated on dev photos of the others."""
    items, made = gallery.items, gallery.manifest
    rows = [row for row in range(len(items)) if label_of(gallery, row) not in new]
    ids, uris = items.take(rows)
    build_version(
        index,
        BuildSource(
            embeddings=gallery.embeddings,
            rows=np.array(rows, np.int64),
            item_ids=ids,
            uris=uris,
            labels=[items.labels[items.label_of[row]] for row in rows],
            model=made.model,
            model_name=made.model_name,
        ),
        IndexSpec(factory=made.factory, metric=made.metric, seed=made.seed),
        held=HeldOutPhotos(vectors, np.arange(len(held)), [parse(photo.label) for photo in held]),
    )


def label_of(gallery: IndexVersion, row: int) -> str:
    return gallery.items.labels[gallery.items.label_of[row]].label


def measured(client: vmmr.Client, gallery: IndexVersion, new: frozenset[str], tests: TestPhotos) -> dict[str, Any]:
    """Return, by photos enrolled, how many test photos of the new classes and of the others were right."""
    rows: dict[str, list[int]] = {label: [] for label in sorted(new)}
    for row in range(len(gallery.items)):
        if (label := label_of(gallery, row)) in new:
            rows[label].append(row)
    result: dict[str, Any] = {}
    for count in ENROLLED:
        chosen = (choice(rows, count, draw) for draw in range(DRAWS if count else 1))
        drawings = [one_draw(client, gallery, each, tests) for each in chosen]
        result[str(count)] = {kind: summary([draw[kind] for draw in drawings]) for kind in ("new", "others")}
    of_new, of_others = (len(tests.part(new=new)[0]) for new in (True, False))
    return {"test photos": {"new": of_new, "others": of_others}, "enrolled": result}


Marks = dict[str, NDArray[np.float64]]
"""(photos,) each: 1 where it is so."""


def choice(rows: dict[str, list[int]], count: int, draw: int) -> list[int]:
    """Draw some gallery photos of each class."""
    rng = np.random.default_rng((SEED, count, draw))
    return [row for label in rows for row in rng.choice(rows[label], count, replace=False).tolist()]


def one_draw(client: vmmr.Client, gallery: IndexVersion, chosen: Sequence[int], tests: TestPhotos) -> dict[str, Marks]:
    """Add photos, ask for all test photos, and delete what was added."""
    sequence = 0
    if chosen:
        items = [
            vmmr.Item(f"new {row}", label_of(gallery, row), gallery.items.uri(row), batch_id="enrolled")
            for row in chosen
        ]
        vectors = vmmr.Embeddings(gallery.manifest.model, gallery.embeddings[chosen].astype(np.float32))
        sequence = client.add_items(items, vectors).journal_sequence
    marks = {kind: marked(client, *tests.part(new=kind == "new"), sequence) for kind in ("new", "others")}
    if chosen:
        client.delete_items(batch_id="enrolled")
    return marks


def marked(client: vmmr.Client, labels: Sequence[str], embeddings: vmmr.Embeddings, sequence: int) -> Marks:
    options = vmmr.SearchOptions(min_sequence=sequence)
    found = [
        each
        for start in range(0, len(labels), _BATCH)
        for each in client.classify(
            taken(embeddings, range(start, min(start + _BATCH, len(labels)))), options=options
        ).classifications
    ]
    answers = [each.answer for each in found]
    make_of = {label: parse(label).make for label in labels}
    return {
        "label": marks(answer and answer.label == label for answer, label in zip(answers, labels, strict=True)),
        "make": marks(answer and answer.make == make_of[label] for answer, label in zip(answers, labels, strict=True)),
        "unknown": marks(each.verdict == "unknown" for each in found),
        "known": marks(each.verdict == "known" for each in found),
    }


def marks(values: Any) -> NDArray[np.float64]:
    return np.array([bool(value) for value in values], np.float64)


def summary(draws: Sequence[Marks]) -> dict[str, list[float]]:
    """Return the mean over photos and draws in %, and its 95 % interval over photos."""
    rng = np.random.default_rng(SEED)
    result = {}
    for name in draws[0]:
        mean = np.mean([draw[name] for draw in draws], axis=0)
        picked = rng.integers(0, len(mean), (_BOOTSTRAPS, len(mean)))
        low, high = np.percentile(mean[picked].mean(axis=1), (2.5, 97.5))
        result[name] = [round(100 * float(value), 1) for value in (mean.mean(), low, high)]
    return result


def table(report: dict[str, Any]) -> str:
    counts = report["test photos"]
    lines = [
        f"{len(report['classes'])} new classes, {counts['new']} test photos of them, {counts['others']} of the others; %",
        "| photos enrolled | label right | make right | unknown | known | others: label right | others: unknown |",
        "|---|---|---|---|---|---|---|",
    ]
    for count, row in report["enrolled"].items():
        new, others = row["new"], row["others"]
        cells = [cell(new[name]) for name in ("label", "make", "unknown", "known")]
        cells += [cell(others[name]) for name in ("label", "unknown")]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(value: Sequence[float]) -> str:
    mean, low, high = value
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
