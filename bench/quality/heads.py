"""Heads side by side, without exporting any: `python -m bench.quality.heads KNOWN NEW --labels LABEL,... --as NAME`.

KNOWN and NEW are embeddings of pooled features (`bench.quality.pooled --raw`, then `vmmr-embedder embed`): of a collection with the splits
train and dev, to whose train photos heads are fitted, and of cars that it lacks, cut to the car. Each head is judged by known dev photos,
by new cars of `--labels` of which n photos are enrolled among all train photos and the others asked for among all labels, five draws,
and by how well known dev photos are told from the new ones before anything is enrolled.

The answer is the label with the largest 0.3 x cosine with its nearest photo + 0.7 x cosine with its photos' mean, by numpy: no index, no fitted
vote, so that heads alone differ. What a head costs is the other half: `bench.quality.head_costs`.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.lib import machine
from bench.lib.paths import RESULTS
from embedder_svc.exporting.whitening import Head, Whitening, fit
from search_svc.dataset.embeddings import Embeddings
from search_svc.fitting.calibration_metrics import auroc, fpr_at_tpr

OUT = RESULTS / "heads.json"
RECIPES = [(0.0, 0.01), (0.0, 0.02), (0.0, 0.05), (0.0, 0.1), (0.0, 0.2), (0.25, 0.1), (0.5, 0.15), (1.0, 0.3)]
DIRECTIONS = (2048, 1024, 512)
COUNTS, DRAWS = (1, 2, 5, 10, 20), 5
MOST_ASKED = 300
"""Photos of one label that a draw asks for, so that a label with many does not outweigh the rest."""
OF_MEAN = 0.7
"""The weight of the label's mean; its nearest photo has the rest."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Cars:
    features: Matrix
    labels: NDArray[np.str_]

    def mapped(self, head: Head | None) -> "Cars":
        """Return the same photos with the embeddings that a head makes of them; None leaves the features, at unit length."""
        return Cars((head.apply(self.features) if head else unit(self.features)).astype(np.float32), self.labels)

    def take(self, rows: Any) -> "Cars":
        return Cars(self.features[rows], self.labels[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("known", type=Path, metavar="KNOWN")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--labels", required=True, help="the new labels, separated by commas")
    parser.add_argument("--as", dest="name", required=True, help="under which name results are written")
    parser.add_argument("--recipes", type=json.loads, default=RECIPES, help="JSON: [[within, shrinkage], ...]")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    known, new = Embeddings.open(args.known), Embeddings.open(args.new)
    train, dev = (split(known, name) for name in ("train", "dev"))
    cars = of_labels(new, args.labels.split(","))
    rows = []
    for row in measured(train, dev, cars, args.recipes):
        rows.append(row)
        print(line(row), flush=True)
    written = json.loads(args.out.read_text()) if args.out.exists() else {"machine": machine.describe()}
    written[args.name] = {"labels": args.labels.split(","), "new photos": len(cars.labels), "heads": rows}
    args.out.write_text(json.dumps(written, indent=1) + "\n")


def tables() -> None:
    """Print what is stored, as docs/export.md has it: of the labels that the head was chosen by, then of those reported."""
    stored = json.loads(OUT.read_text())
    for part, known in (("chosen", True), ("report", False)):
        for row in stored[part]["heads"]:
            cells = [_recipe(row), *([f"{row['known, nearest']} / {row['known']}"] if known else [])]
            new = " / ".join(f"{each['mean over labels']}" for each in row["new"].values())
            cells += [f"{row['AUROC']} / {row['FPR95']}", new]
            print(f"| {' | '.join(cells)} |")


def _recipe(row: dict[str, Any]) -> str:
    if "head" in row:
        return "none: pooled features, 2048"
    within = {0: "total", 1: "within labels"}.get(row["within"], f"{row['within']} within")
    return f"{within}, {row['shrinkage']}, {row['directions']}"


def split(embeddings: Embeddings, name: str) -> Cars:
    return some(embeddings, [row for row, photo in enumerate(embeddings.photos) if photo.split == name])


def of_labels(embeddings: Embeddings, names: Sequence[str]) -> Cars:
    return some(embeddings, [row for row, photo in enumerate(embeddings.photos) if photo.label.label in names])


def some(embeddings: Embeddings, rows: list[int]) -> Cars:
    labels = np.array([embeddings.photos[row].label.label for row in rows])
    return Cars(embeddings.matrix[rows].astype(np.float32), labels)


def measured(train: Cars, dev: Cars, new: Cars, recipes: Sequence[tuple[float, float]]) -> Iterator[dict[str, Any]]:
    yield {"head": "none", **judged(train.mapped(None), dev.mapped(None), new.mapped(None))}
    for within, shrinkage in recipes:
        whole = fit(train.features, train.labels.tolist(), Whitening(within, shrinkage, worn=0))
        for directions in DIRECTIONS:
            head = Head(whole.matrix[:, :directions], whole.bias[:directions])
            parts = (cars.mapped(head) for cars in (train, dev, new))
            yield {"within": within, "shrinkage": shrinkage, "directions": directions, **judged(*parts)}


def judged(train: Cars, dev: Cars, new: Cars) -> dict[str, Any]:
    """Return the figures of one head, in %."""
    names, nearest, both = among(train, np.vstack([dev.features, new.features]))
    count = len(dev.labels)
    told = both.max(axis=1)
    return {
        "known, nearest": percent(names[nearest[:count].argmax(1)] == dev.labels),
        "known": percent(names[both[:count].argmax(1)] == dev.labels),
        "AUROC": round(100 * auroc(told[:count], told[count:]), 1),
        "FPR95": round(100 * fpr_at_tpr(told[:count], told[count:]), 1),
        "new": {str(number): enrolled(new, both[count:].max(1), number) for number in COUNTS},
    }


def among(gallery: Cars, queries: Matrix) -> tuple[NDArray[np.str_], Matrix, Matrix]:
    """Return the gallery's labels (L,), and of each query and label the cosine with the nearest photo, and the score (N, L)."""
    names, number = np.unique(gallery.labels, return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(np.bincount(number))[:-1]])
    ordered = gallery.features[np.argsort(number, kind="stable")]
    nearest = np.maximum.reduceat(queries @ ordered.T, starts, axis=1)
    return names, nearest, scores(nearest, queries @ unit(np.add.reduceat(ordered, starts)).T)


def scores(nearest: Matrix, mean: Matrix) -> Matrix:
    return (1 - OF_MEAN) * nearest + OF_MEAN * mean


def enrolled(new: Cars, known_score: Matrix, count: int) -> dict[str, Any]:
    """Return the share of new photos that get their label: the mean over draws, all photos and each label by itself."""
    right: dict[str, list[float]] = {}
    for draw in range(DRAWS):
        rng = np.random.default_rng((draw, count))
        shuffled = {name: rng.permutation(np.flatnonzero(new.labels == name)) for name in np.unique(new.labels)}
        shuffled = {name: rows for name, rows in shuffled.items() if len(rows) > count}
        added = new.take(np.concatenate([rows[:count] for rows in shuffled.values()]))
        for name, rows in shuffled.items():
            asked = rows[count : count + MOST_ASKED]
            names, _, both = among(added, new.features[asked])
            found = (names[both.argmax(1)] == name) & (both.max(1) > known_score[asked])
            right.setdefault(str(name), []).append(found.mean())
    by_label = {name: round(100 * float(np.mean(shares)), 1) for name, shares in right.items()}
    return {"labels": len(by_label), "mean over labels": round(float(np.mean(list(by_label.values()))), 1)} | by_label


def unit(vectors: Matrix) -> Matrix:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def percent(right: NDArray[np.bool_]) -> float:
    return round(100 * float(right.mean()), 1)


def line(row: dict[str, Any]) -> str:
    name = "no head" if "head" in row else f"within {row['within']}, shrinkage {row['shrinkage']}, {row['directions']}"
    new = ", ".join(f"{count}: {found['mean over labels']}" for count, found in row["new"].items())
    return f"{name:36} known {row['known, nearest']} / {row['known']}  AUROC {row['AUROC']} FPR95 {row['FPR95']}  new {new}"


if __name__ == "__main__":
    main()
