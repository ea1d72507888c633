"""Divides a collection for the selection: train photos make the gallery, dev photos are the queries."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.building.build_source import BuildSource
from search_svc.dataset.embeddings import Embeddings
from svckit.cli import CommandError

MOST_ASKED = 4096
"""If there are more dev photos, so many are drawn: more would tell little, and cost time with every index."""


@dataclass(frozen=True)
class Division:
    gallery: BuildSource
    """The train photos."""
    asked: NDArray[np.int64]
    """(Q,) The rows, in the embeddings, of the dev photos to ask for."""
    unknown: int
    """How many dev photos have a label that no train photo has."""


def divide(embeddings: Embeddings, left_out: set[str]) -> Division:
    """Divide the photos that are not `left_out`. Raises CommandError if there are no train photos, or no dev photos."""
    rows: dict[str, list[int]] = {"train": [], "dev": []}
    for row, photo in enumerate(embeddings.photos):
        if photo.split in rows and photo.path not in left_out:
            rows[photo.split].append(row)
    for split, found in rows.items():
        if not found:
            raise CommandError(f"there is no photo of the split {split} among the embeddings")
    gallery = BuildSource.of(embeddings, np.array(rows["train"], np.int64))
    gallery.check()
    names = {label.label for label in gallery.labels}
    known = np.array([row for row in rows["dev"] if embeddings.photos[row].label.label in names], np.int64)
    if not len(known):
        raise CommandError("no dev photo has a label that a train photo has")
    return Division(gallery, _drawn(known), len(rows["dev"]) - len(known))


def _drawn(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(rows) <= MOST_ASKED:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, MOST_ASKED, replace=False))
