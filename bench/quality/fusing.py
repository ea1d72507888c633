"""Rules to fuse several photos of one car, side by side: the table in docs/calibration.md.

    python -m bench.quality.fusing EMBEDDINGS INDEX

Groups of 2, 3 and 4 dev photos of one label, 20 for each label that has so many; right label in percent.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.embeddings import Embeddings
from search_svc.engine.local import LocalEngine
from search_svc.index.version import IndexVersion
from search_svc.voting.vote import elect

_GROUPS = 20
_UNIFORM = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("index", type=Path)
    args = parser.parse_args()
    version, embeddings = IndexVersion.open(args.index), Embeddings.open(args.embeddings)
    labels = version.items.labels
    place = {label.label: position for position, label in enumerate(labels)}
    photos = [row for row, photo in enumerate(embeddings.photos) if photo.split == "dev" and photo.label.label in place]
    vectors = embeddings.matrix[photos].astype(np.float32)
    truth = np.array([place[embeddings.photos[row].label.label] for row in photos])
    with LocalEngine.open(version) as shards:
        weights = _weights(version, shards, vectors)
        shares = _whole(weights)
        rules = {
            "mean of the shares": lambda groups: shares[groups].mean(axis=1),
            "product of the shares": lambda groups: np.exp(
                np.log((1 - _UNIFORM) * shares[groups] + _UNIFORM / len(labels)).sum(axis=1)
            ),
            "all neighbours by their score": lambda groups: weights[groups].sum(axis=1),
            "search with the mean embedding": lambda groups: _weights(version, shards, _mean(vectors[groups])),
        }
        for size in (1, 2, 3, 4):
            groups = _draw(truth, size)
            for name, rule in rules.items():
                right = [
                    elect([(labels[node], each[node]) for node in np.flatnonzero(each)]).answer is labels[of]  # type: ignore[union-attr]
                    for each, of in zip(rule(groups), truth[groups[:, 0]], strict=True)
                ]
                print(f"{size} photos, {len(groups)} groups, {name:32s} {100 * np.mean(right):.1f}")


def _weights(version: IndexVersion, shards: LocalEngine, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the neighbours' weights (photos, labels), not divided by anything."""
    hits = shards.search(vectors, version.manifest.k).hits
    weights = np.zeros((len(vectors), len(version.items.labels)))
    rows = np.arange(len(vectors))[:, None]
    np.add.at(weights, (rows, version.items.label_of[hits.ids]), np.exp(hits.scores / version.manifest.temperature))
    return weights


def _whole(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _mean(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = vectors.mean(axis=1)
    unit: NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def _draw(truth: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(1)
    rows_of = [np.flatnonzero(truth == label) for label in np.unique(truth)]
    return np.array(
        [rng.choice(rows, size, replace=False) for rows in rows_of if len(rows) >= size for _ in range(_GROUPS)]
    )


if __name__ == "__main__":
    main()
