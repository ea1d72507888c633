"""Copies: photos that are there twice. Nearest neighbours are candidates, small grey thumbnails leave those alike, and pixels decide."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from search_svc.audit import pixels, thumbnails
from search_svc.audit.neighbours import NOBODY, Neighbours
from search_svc.audit.thumbnails import Thumbnail
from search_svc.dataset.photo_list import Photo
from svckit.manifests import Split

CANDIDATES = 5
"""How many of a photo's nearest neighbours are compared with it. Whatever we planted, a copy was the very nearest."""
ALIKE = 0.92
"""The pixels of two photos with this likeness or more are compared (docs/audit.md)."""

_IN_MEMORY = 32_768
"""Thumbnails kept in memory, of 4 KB each."""
_ROUGHLY = 0.35
"""Two photos with a rough likeness below this are not compared closely."""

KEPT: Mapping[Split, int] = {"test": 0, "unseen-test": 1, "dev": 2, "unseen-dev": 3, "train": 4}
"""Of several copies, the one whose split has the lowest number stays: train must not keep a photo that figures are of."""


@dataclass(frozen=True)
class Copy:
    """Two photos that are alike, named by their rows."""

    row: int
    other: int
    alike: float
    """Their likeness, up to 1."""
    same: bool
    """Whether their pixels agree, so that they are one picture; otherwise nobody knows whether they are."""


class Thumbnails:
    """Reads the thumbnails of a collection, and keeps some. Neighbours are mostly of one label, so most are read once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.unreadable: dict[int, str] = {}
        self.of = lru_cache(_IN_MEMORY)(self._read)

    def are_same(self, row: int, other: int) -> bool:
        """Return whether the pixels of two photos agree. Raise OSError if one can't be read any more."""
        return pixels.same(pixels.read(self._paths[row]), pixels.read(self._paths[other]))

    def _read(self, row: int) -> Thumbnail | None:
        try:
            return thumbnails.read(self._paths[row])
        except OSError as error:
            self.unreadable[row] = error.strerror or str(error)
            return None


def find(near: Neighbours, pictures: Thumbnails, advance: Callable[[int], object]) -> list[Copy]:
    """Return all pairs that are alike among photos and their nearest neighbours. Calls `advance(1)` after each photo."""
    copies, seen = [], set()
    for row, others in enumerate(near.rows[:, :CANDIDATES]):
        for other in map(int, others):
            pair = min(row, other), max(row, other)
            if other == NOBODY or pair in seen:
                continue
            seen.add(pair)
            alike = _alike(pictures.of(pair[0]), pictures.of(pair[1]))
            if alike >= ALIKE:
                copies.append(Copy(*pair, alike, pictures.are_same(*pair)))
        advance(1)
    return copies


def without_copies(near: Neighbours, groups: Iterable[Sequence[int]]) -> Neighbours:
    """Return the neighbours of each photo, without its copies. `groups` are the groups of copies."""
    group = np.arange(len(near.rows))
    for rows in groups:
        group[list(rows)] = rows[0]
    return near.only((near.rows != NOBODY) & (group[near.rows] != group[:, None]))


def groups(copies: Iterable[Copy]) -> list[list[int]]:
    """Return the groups of photos that these pairs join, directly or through others. Groups and their rows are sorted."""
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
    """Return the photos of a group to exclude, with the reason: all but one, or all if their labels differ."""
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
