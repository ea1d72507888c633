"""The delta: in memory, the items that were written to a gallery since its version was built.

An item that is written is appended as a row of the delta, and the row that it had before becomes a tombstone: it is marked
as dead if it was a row of the delta, as gone if it was a row of the version. All of it only grows, so a snapshot is a few
numbers, the labels' counts and the sums of the labels that were written to, however much was written: nothing else is
copied, and readers of older snapshots are not disturbed.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.cuts import CutKind, kind_of
from search_svc.engine.blocks import Blocks
from search_svc.index.journal import Entry
from search_svc.index.version import IndexVersion
from search_svc.voting.growing import Growing
from search_svc.voting.labels import parse
from search_svc.voting.means import Means, Sum

_NONE = -1
_MOST_DEAD = 1024
"""Up to so many dead rows are kept, or as many as there are live ones, before the delta is rewritten."""


@dataclass(frozen=True)
class DeltaItem:
    """An item of the delta, as far as answers need it; its batch and attributes stay in the journal."""

    item_id: str
    label: int
    """Its label's number in the vocabulary."""
    uri: str
    before: int
    """The row of the delta that the item had before; -1 if it had none."""
    cut: CutKind = CutKind.UNKNOWN
    """What of its photo was embedded."""


class Delta:
    """The rows that were written, and the tombstones. One thread writes; any thread may read a snapshot.

    The public attributes are for snapshots to read.
    """

    def __init__(self, version: IndexVersion) -> None:
        """Begin with no rows over a version. New labels are added to the vocabulary of its items, `base`."""
        self.version = version
        self.base = version.items
        self.items: list[DeltaItem] = []
        self.blocks = Blocks(version.manifest.dimension, version.manifest.metric)
        self.label_of = Growing(np.int32)
        self.dead = Growing(np.int64)
        """Rows of the delta, in the order in which they died."""
        self.gone = Growing(np.int64)
        """Rows of the version, in the order in which they went."""
        self.died: dict[int, int] = {}
        """Row of the delta -> its place in `dead`."""
        self.went: dict[int, int] = {}
        """Row of the version -> its place in `gone`."""
        self.newest: dict[str, int] = {}
        """Item id -> the last row of the delta that the item got, dead or not."""
        self._counts = self.base.counts.copy()  # (at least as many as there are labels,)
        self._sums: dict[int, Sum] = {}
        self._cuts = np.bincount(self.base.cut_kinds, minlength=len(CutKind))
        self._longest = 0.0

    def problem(self, entry: Entry) -> str | None:
        """Return why the entry cannot be of this gallery, or None if it can."""
        expected = 2 * self.version.manifest.dimension
        got = len(entry.item.embedding) if entry.item else expected
        if got == expected:
            return None
        return f"entry {entry.sequence} ({entry.item_id!r}) has an embedding of {got} bytes, those of the index have {expected}"

    def write(self, entry: Entry) -> None:
        """Apply an entry of the journal, one for which `problem` returns None."""
        item = entry.item
        before = self._withdraw(entry.item_id)
        if item is None:
            return
        vector = np.frombuffer(item.embedding, np.dtype("<f2"))
        label = self._label(item.label)
        self._append(DeltaItem(entry.item_id, label, item.uri, before, kind_of(item.cut)), vector)

    def snapshot(self) -> "Snapshot":
        """Return the delta as it is now."""
        counts = self._counts[: len(self.base.vocabulary)].copy()
        sums, cuts = dict(self._sums), self._cuts.copy()
        return Snapshot(self, len(self.items), len(self.dead), len(self.gone), counts, sums, self._longest, cuts)

    @property
    def needs_rewrite(self) -> bool:
        """Whether most rows are dead, so that the time of `without_tombstones` is well spent."""
        return len(self.dead) > max(_MOST_DEAD, len(self.items) - len(self.dead))

    def without_tombstones(self) -> "Delta":
        """Return a delta without the dead rows; the live ones keep their order, and what is gone stays gone."""
        new = Delta(self.version)
        for row in self.gone.first(len(self.gone)).tolist():
            new._mark_gone(row)
        embeddings = self.blocks.embeddings.first(len(self.items))
        for row, item in enumerate(self.items):
            if row not in self.died:
                new._append(dataclasses.replace(item, before=_NONE), embeddings[row])
        return new

    def _withdraw(self, item_id: str) -> int:
        """Take the item out of the gallery, if it is there. Return its row in the delta; -1 if it never had one."""
        row = self.newest.get(item_id, _NONE)
        if row != _NONE:
            self._mark_dead(row)
        elif (of_version := self.base.row(item_id)) is not None:
            self._mark_gone(of_version)
        return row

    def _mark_dead(self, row: int) -> None:
        if row not in self.died:
            self.died[row] = len(self.dead)
            self.dead.append(row)
            self._count(self.items[row].label, -1, self.blocks.embeddings.first(row + 1)[row])
            self._cuts[self.items[row].cut] -= 1

    def _mark_gone(self, row: int) -> None:
        if row not in self.went:
            self.went[row] = len(self.gone)
            self.gone.append(row)
            self._count(int(self.base.label_of[row]), -1, self.version.embeddings[row])
            self._cuts[self.base.cut_kinds[row]] -= 1

    def _append(self, item: DeltaItem, vector: NDArray[np.float16]) -> None:
        self.newest[item.item_id] = len(self.items)
        self.blocks.append(vector)
        self.label_of.append(item.label)
        self.items.append(item)
        if item.label >= len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(item.label + 1, np.int64)])
        self._count(item.label, 1, vector)
        self._cuts[item.cut] += 1
        self._longest = max(self._longest, math.sqrt(np.square(vector, dtype=np.float32).sum()))

    def _count(self, label: int, photos: int, vector: NDArray[np.float16]) -> None:
        """Let a label have one photo more (1) or less (-1). Sums are replaced, not written to: snapshots share them."""
        self._counts[label] += photos
        sum_ = self._sums.get(label)
        before = self.version.means.sum_of(label) if sum_ is None else sum_
        self._sums[label] = before + photos * vector.astype(np.float64)

    def _label(self, name: str) -> int:
        place = self.base.vocabulary.place(name)
        return self.base.vocabulary.add(parse(name, self.base.makes)) if place is None else place


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A delta as it was at one moment. Thread-safe."""

    delta: Delta
    rows: int
    """Number of rows of the delta, dead ones included."""
    dead: int
    """Number of dead rows of the delta."""
    gone: int
    """Number of rows of the version that are gone."""
    counts: NDArray[np.int64]
    """(labels,) photos of each label in the gallery, those of the version included; 0 for a label that lost its last."""
    sums: Mapping[int, Sum]
    """The sums of the labels that were written to since the version was built; the other labels have the version's."""
    longest: float
    """Upper bound of the embeddings' lengths."""
    cuts: NDArray[np.int64]
    """(kinds,) photos in the gallery by what of them was embedded, those of the version included."""

    @cached_property
    def means(self) -> Means:
        return self.delta.version.means.with_changes(self.sums)

    @property
    def live_items(self) -> int:
        return self.rows - self.dead

    @cached_property
    def live(self) -> NDArray[np.int64]:
        """Rows of the delta that are not dead, ascending. (live_items,)"""
        alive = np.ones(self.rows, np.bool_)
        alive[self.delta.dead.first(self.dead)] = False
        return np.flatnonzero(alive)

    @cached_property
    def dead_rows(self) -> NDArray[np.int64]:
        """Rows of the delta that are dead, ascending. (dead,)"""
        return np.sort(self.delta.dead.first(self.dead))

    @cached_property
    def gone_rows(self) -> NDArray[np.int64]:
        """Rows of the version that are in the gallery no more, ascending. (gone,)"""
        return np.sort(self.delta.gone.first(self.gone))

    @property
    def embeddings(self) -> NDArray[np.float16]:
        """(rows, dimension)."""
        return self.delta.blocks.embeddings.first(self.rows)

    @property
    def label_of(self) -> NDArray[np.int32]:
        """(rows,): labels as numbers in the vocabulary."""
        return self.delta.label_of.first(self.rows)

    def row(self, item_id: str) -> int | None:
        """Return the item's row, or None if it is not in the gallery. Rows of the delta follow those of the version."""
        row = self.delta.newest.get(item_id, _NONE)
        while row >= self.rows:  # written after this snapshot was taken
            row = self.delta.items[row].before
        if row != _NONE:
            dead = self.delta.died.get(row, self.dead) < self.dead
            return None if dead else len(self.delta.base) + row
        of_version = self.delta.base.row(item_id)
        if of_version is None or self.delta.went.get(of_version, self.gone) < self.gone:
            return None
        return of_version
