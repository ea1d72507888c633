"""Compares the servers' answers with answers made by hand: offline embeddings, faiss called directly, a vote of a few lines."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import faiss
import numpy as np
import vmmr
from numpy.typing import NDArray

from demo.answers import Answered
from demo.chain import Chain
from demo.screen import step
from search_svc.dataset.embeddings import Embeddings
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import Label
from svckit.cli import CommandError

Neighbours = Sequence[tuple[str, Label, float]]
"""(item id, label, score), nearest first."""

_BATCH = 16
_ROUNDING = 1e-5  # float32 sums of 2048 products differ by less, in whatever order they are added
_LEVELS: tuple[Callable[[Label], str], ...] = (
    lambda label: label.make or label.label,
    lambda label: label.model,
    lambda label: label.label,
)


def compare(client: vmmr.Client, chain: Chain, answered: Sequence[Answered]) -> None:
    """Check that the servers' embeddings, neighbours and answers are the same as those that are made by hand.

    Raises CommandError, naming the first photo for which they differ.
    """
    with step("compare") as comparing:
        paths = [each.path for each in answered]
        served = _embedded(client, chain.photos, paths)
        offline = _offline(chain.embeddings, paths)
        _check("embedding", paths, (served.astype(offline.dtype) == offline).all(axis=1))
        version = IndexVersion.open(chain.index)
        direct = _nearest(version, served)
        _check("neighbours", paths, map(_same_neighbours, answered, direct))
        worth = _photo_weights(version)
        votes = [_vote(neighbours, version.manifest.temperature, worth) for neighbours in direct]
        _check("answer", paths, (each.found.answer == vote for each, vote in zip(answered, votes, strict=True)))
        comparing.result = f"{len(paths)} photos: as embedded offline, as found by faiss called directly"


def _check(what: str, paths: Sequence[str], same: Iterable[object]) -> None:
    different = [path for path, equal in zip(paths, same, strict=True) if not equal]
    if different:
        raise CommandError(f"served and direct {what} of {len(different)} photos differ, first of {different[0]}")


def _embedded(client: vmmr.Client, photos: Path, paths: Sequence[str]) -> NDArray[np.float32]:
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    return np.concatenate([client.embed([photos / path for path in batch]).vectors for batch in batches])


def _offline(directory: Path, paths: Sequence[str]) -> NDArray[np.floating]:
    embeddings = Embeddings.open(directory)
    rows = {photo.path: row for row, photo in enumerate(embeddings.photos)}
    return np.asarray(embeddings.matrix[[rows[path] for path in paths]])


def _nearest(version: IndexVersion, queries: NDArray[np.float32]) -> list[Neighbours]:
    """Return the neighbours of each query, by a faiss index of our own over the gallery."""
    index = faiss.IndexFlatIP(version.manifest.dimension)
    index.add(version.embeddings.astype(np.float32))
    scores, rows = index.search(queries, version.manifest.k)
    items = version.items
    return [
        [(items.item_id(row), items.labels[items.label_of[row]], score) for row, score in zip(*found, strict=True)]
        for found in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def _same_neighbours(each: Answered, direct: Neighbours) -> bool:
    """Return whether served and direct neighbours are the same; of photos that are equally near, either may come first."""
    served = [(neighbour.item_id, neighbour.score) for neighbour in each.found.neighbours]
    nearer = [score for _, _, score in direct]
    return len(served) == len(direct) and all(
        math.isclose(score, direct_score, abs_tol=_ROUNDING) and (item_id == direct_id or _ties(nearer, direct_score))
        for (item_id, score), (direct_id, _, direct_score) in zip(served, direct, strict=True)
    )


def _ties(scores: Sequence[float], score: float) -> bool:
    return sum(math.isclose(score, other, abs_tol=_ROUNDING) for other in scores) > 1


def _photo_weights(version: IndexVersion) -> dict[str, float]:
    """Return label -> weight of each of its photos, which the calibration makes smaller the more photos there are."""
    prior = version.calibration.prior if version.calibration else 0.0
    counts = Counter(version.items.labels[number].label for number in version.items.label_of.tolist())
    return {label: count**-prior for label, count in counts.items()}


def _vote(neighbours: Neighbours, temperature: float, worth: Mapping[str, float]) -> vmmr.Label:
    """Vote from the make down to the label: at each level, the heaviest of what the level above has left."""
    best = neighbours[0][2]
    voters = [(label, math.exp((score - best) / temperature) * worth[label.label]) for _, label, score in neighbours]
    for level in _LEVELS:
        votes = defaultdict(list)
        for label, weight in voters:
            votes[level(label)].append(weight)
        heaviest = min(votes, key=lambda name: (-math.fsum(votes[name]), name))
        voters = [(label, weight) for label, weight in voters if level(label) == heaviest]
    winner = voters[0][0]
    return vmmr.Label(winner.label, winner.make, winner.model, winner.year)
