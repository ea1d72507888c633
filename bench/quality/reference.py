"""How the default model compares with the published-style reference: 100 classes, 16 gallery and 8 query photos each.

    python -m bench.quality.reference .cache/demo/stanford_cars/embeddings

Draws the classes and photos again and again, for which classes are drawn decides much, and prints the mean and the
range that 95 % of the draws fall in. Nearest photo by cosine.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.embeddings import Embeddings

CLASSES, GALLERY, QUERIES = 100, 16, 8
DRAWS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embeddings", type=Path, help="what `make cars` embedded")
    embeddings = Embeddings.open(parser.parse_args().embeddings)
    rng = np.random.default_rng(0)
    scores = np.array([draw(embeddings, rng) for _ in range(DRAWS)])  # (draws, 3)
    for name, column in zip(("top-1", "top-5 images", "make"), 100 * scores.T, strict=True):
        low, high = np.percentile(column, [2.5, 97.5])
        print(f"{name:14}{column.mean():6.1f} [{low:.1f}, {high:.1f}]")


def draw(embeddings: Embeddings, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the shares of queries whose nearest photo, one of 5 nearest photos, and nearest photo's make are right."""
    gallery, queries = choose(embeddings, rng)
    labels = np.array([photo.label.label for photo in embeddings.photos])
    makes = np.array([photo.label.make for photo in embeddings.photos])
    similarity = vectors(embeddings, queries) @ vectors(embeddings, gallery).T
    nearest = gallery[np.argsort(-similarity, axis=1)[:, :5]]
    right = labels[nearest] == labels[queries][:, None]
    return right[:, 0].mean(), right.any(axis=1).mean(), (makes[nearest[:, 0]] == makes[queries]).mean()


def choose(embeddings: Embeddings, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the rows of the gallery and of the queries."""
    rows = defaultdict(list)
    for row, photo in enumerate(embeddings.photos):
        rows[photo.label.label].append(row)
    large = sorted(label for label, of_label in rows.items() if len(of_label) >= GALLERY + QUERIES)
    chosen = [rng.permutation(rows[label]) for label in rng.choice(large, CLASSES, replace=False)]
    return (
        np.concatenate([each[:GALLERY] for each in chosen]),
        np.concatenate([each[GALLERY : GALLERY + QUERIES] for each in chosen]),
    )


def vectors(embeddings: Embeddings, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return embeddings.matrix[rows].astype(np.float32)


if __name__ == "__main__":
    main()
