"""What was written to a gallery since its version was built, in memory.

An item that is written is appended, and the row that it had before is marked as dead; a row of the version that is written
over, or deleted, is marked as gone. All of it only grows, so a snapshot is a few numbers and the labels' counts, however much
was written: nothing else is copied, and readers of older snapshots are not disturbed.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.blocks import Blocks
from search_svc.index.items import Items
from search_svc.index.journal import Entry
from search_svc.index.version import Metric
from search_svc.voting.growing import Growing
from search_svc.voting.labels import parse

_NONE = -1
_MOST_DEAD = 1024
"""Dead rows stay where they are while they are so few, or fewer than the others."""


@dataclass(frozen=True)
class Written:
    """What answers tell of an item; the rest stays in the journal."""

    item_id: str
    label: int
    """Its number in the vocabulary."""
    uri: str
    before: int
    """The row of the delta that the item had before; -1 if it had none."""


class Delta:
    """One thread writes; snapshots are for any. What is public here is for snapshots to read."""

    def __init__(self, base: Items, dimension: int, metric: Metric) -> None:
        """`base` are the items of the version; its vocabulary gets the labels that are new."""
        self.base = base
        self.dimension = dimension
        self.metric = metric
        self.items: list[Written] = []
        self.blocks = Blocks(dimension, metric)
        self.label_of = Growing(np.int32)
        self.dead = Growing(np.int64)
        """Rows of the delta, in the order in which they died."""
        self.gone = Growing(np.int64)
        """Rows of the version, in the order in which they went."""
        self.died: dict[int, int] = {}
        """Where a row is in `dead`."""
        self.went: dict[int, int] = {}
        """Where a row is in `gone`."""
        self.newest: dict[str, int] = {}
        """The last row of each item that was ever written here."""
        self._counts = base.counts.copy()  # (labels or more,)
        self._longest = 0.0

    def problem(self, entry: Entry) -> str | None:
        """Why the entry cannot be of this gallery."""
        expected, got = 2 * self.dimension, len(entry.item.embedding) if entry.item else 2 * self.dimension
        if got == expected:
            return None
        return f"entry {entry.sequence} ({entry.item_id!r}) has an embedding of {got} bytes, those of the index have {expected}"

    def write(self, entry: Entry) -> None:
        """Of an entry without a problem."""
        item = entry.item
        before = self._withdraw(entry.item_id)
        if item is None:
            return
        vector = np.frombuffer(item.embedding, np.dtype("<f2"))
        label = self._label(item.label)
        self._append(Written(entry.item_id, label, item.uri, before), vector)

    def snapshot(self) -> "Snapshot":
        """What was written so far."""
        counts = self._counts[: len(self.base.vocabulary)].copy()
        return Snapshot(self, len(self.items), len(self.dead), len(self.gone), counts, self._longest)

    @property
    def crowded(self) -> bool:
        """Whether most rows are dead, so that `renewed` is worth its time."""
        return len(self.dead) > max(_MOST_DEAD, len(self.items) - len(self.dead))

    def renewed(self) -> "Delta":
        """The same without the dead rows; the others keep their order."""
        new = Delta(self.base, self.dimension, self.metric)
        for row in self.gone.first(len(self.gone)).tolist():
            new._send_off(row)
        embeddings = self.blocks.embeddings.first(len(self.items))
        for row, item in enumerate(self.items):
            if row not in self.died:
                new._append(Written(item.item_id, item.label, item.uri, _NONE), embeddings[row])
        return new

    def _withdraw(self, item_id: str) -> int:
        """Takes out whatever is there under that id; returns the row that it has, or had, in the delta."""
        row = self.newest.get(item_id, _NONE)
        if row != _NONE:
            self._bury(row)
        elif (of_version := self.base.row(item_id)) is not None:
            self._send_off(of_version)
        return row

    def _bury(self, row: int) -> None:
        if row not in self.died:
            self.died[row] = len(self.dead)
            self.dead.append(row)
            self._counts[self.items[row].label] -= 1

    def _send_off(self, row: int) -> None:
        if row not in self.went:
            self.went[row] = len(self.gone)
            self.gone.append(row)
            self._counts[self.base.label_of[row]] -= 1

    def _append(self, item: Written, vector: NDArray[np.float16]) -> None:
        self.newest[item.item_id] = len(self.items)
        self.blocks.append(vector)
        self.label_of.append(item.label)
        self.items.append(item)
        if item.label >= len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(item.label + 1, np.int64)])
        self._counts[item.label] += 1
        self._longest = max(self._longest, math.sqrt(np.square(vector, dtype=np.float32).sum()))

    def _label(self, name: str) -> int:
        place = self.base.vocabulary.place(name)
        return self.base.vocabulary.add(parse(name)) if place is None else place


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The delta as it was at some moment. Thread-safe."""

    delta: Delta
    rows: int
    """Rows of the delta, dead ones included."""
    dead: int
    gone: int
    counts: NDArray[np.int64]
    """(labels,) photos of each in the gallery, the version's included. Labels that have none may be there."""
    longest: float
    """Length of the longest embedding, or more."""

    @property
    def live_items(self) -> int:
        return self.rows - self.dead

    @cached_property
    def live(self) -> NDArray[np.int64]:
        """Rows of the delta that are not dead, ascending."""
        alive = np.ones(self.rows, np.bool_)
        alive[self.delta.dead.first(self.dead)] = False
        return np.flatnonzero(alive)

    @cached_property
    def dead_rows(self) -> NDArray[np.int64]:
        """Rows of the delta that are dead, ascending."""
        return np.sort(self.delta.dead.first(self.dead))

    @cached_property
    def gone_rows(self) -> NDArray[np.int64]:
        """Rows of the version that are in the gallery no more, ascending."""
        return np.sort(self.delta.gone.first(self.gone))

    @property
    def embeddings(self) -> NDArray[np.float16]:
        return self.delta.blocks.embeddings.first(self.rows)

    @property
    def label_of(self) -> NDArray[np.int32]:
        return self.delta.label_of.first(self.rows)

    def row(self, item_id: str) -> int | None:
        """Where the item is: a row of the version, or beyond these one of the delta; None if it is not in the gallery."""
        row = self.delta.newest.get(item_id, _NONE)
        while row >= self.rows:  # written since
            row = self.delta.items[row].before
        if row != _NONE:
            dead = self.delta.died.get(row, self.dead) < self.dead
            return None if dead else len(self.delta.base) + row
        of_version = self.delta.base.row(item_id)
        if of_version is None or self.delta.went.get(of_version, self.gone) < self.gone:
            return None
        return of_version
