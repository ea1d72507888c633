"""Photos that are there twice: found among the nearest neighbours, and told from look-alikes by their pixels."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from search_svc.audit import thumbnails
from search_svc.audit.neighbours import NOBODY, Neighbours
from search_svc.audit.thumbnails import Thumbnail
from search_svc.dataset.photo_list import Photo, Split

CANDIDATES = 5
"""Neighbours of a photo that may be copies of it. A copy is the very nearest, in all that was tried (docs/audit.md)."""
ALIKE = 0.92
"""From here on two photos are one (docs/audit.md)."""

_IN_MEMORY = 32_768
"""Thumbnails, of 4 KB each."""
_ROUGHLY = 0.35
"""Below this the thumbnails of two photos are not worth a closer look."""

KEPT: Mapping[Split, int] = {"test": 0, "unseen-test": 1, "dev": 2, "unseen-dev": 3, "train": 4}
"""Which of several copies stays: one that is measured with, so that what is left of train never holds it."""


@dataclass(frozen=True)
class Copy:
    """Two photos that are one."""

    row: int
    other: int
    alike: float


class Thumbnails:
    """Of a collection's photos. Neighbours are mostly of one label, so a photo is mostly read once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.unreadable: dict[int, str] = {}
        self.of = lru_cache(_IN_MEMORY)(self._read)

    def _read(self, row: int) -> Thumbnail | None:
        try:
            return thumbnails.read(self._paths[row])
        except OSError as error:
            self.unreadable[row] = error.strerror or str(error)
            return None


def find(near: Neighbours, pictures: Thumbnails, advance: Callable[[int], object]) -> list[Copy]:
    """Every pair of copies among a photo and its nearest neighbours. `advance` is told of every photo that is done."""
    copies, seen = [], set()
    for row, others in enumerate(near.rows[:, :CANDIDATES]):
        for other in map(int, others):
            pair = min(row, other), max(row, other)
            if other == NOBODY or pair in seen:
                continue
            seen.add(pair)
            alike = _alike(pictures.of(pair[0]), pictures.of(pair[1]))
            if alike >= ALIKE:
                copies.append(Copy(*pair, alike))
        advance(1)
    return copies


def without(near: Neighbours, groups: Iterable[Sequence[int]]) -> Neighbours:
    """The neighbours that are no copies of the photo."""
    group = np.arange(len(near.rows))
    for rows in groups:
        group[list(rows)] = rows[0]
    return near.only((near.rows != NOBODY) & (group[near.rows] != group[:, None]))


def groups(copies: Iterable[Copy]) -> list[list[int]]:
    """Photos that are one, directly or through others; each group sorted, and the groups too."""
    root: dict[int, int] = {}

    def find_root(row: int) -> int:
        while root.setdefault(row, row) != row:
            row = root[row]
        return row

    for copy in copies:
        one, other = sorted((find_root(copy.row), find_root(copy.other)))
        root[other] = one
    members = defaultdict(list)
    for row in sorted(root):
        members[find_root(row)].append(row)
    return list(members.values())


def to_drop(group: Sequence[int], photos: Sequence[Photo]) -> list[tuple[int, str]]:
    """The photos of a group that need not stay, each with the reason: all but one, or all if their labels differ."""
    first = photos[group[0]]
    if other := next((photos[row] for row in group if photos[row].label != first.label), None):
        reason = f"copies with different labels: {first.label.label} and {other.label.label}"
        return [(row, reason) for row in group]
    kept = min(group, key=lambda row: (KEPT[photos[row].split], photos[row].path))
    return [(row, f"a copy of {photos[kept].path}") for row in group if row != kept]


def _alike(one: Thumbnail | None, other: Thumbnail | None) -> float:
    if one is None or other is None or thumbnails.roughly_alike(one, other) < _ROUGHLY:
        return -1.0
    return thumbnails.alike(one, other)
