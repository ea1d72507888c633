"""Items of a living gallery, by id and in pages: those of a version, and what the journal says of them.

The journal is asked itself, so what was acknowledged by any process is here at once, followed or not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from search_svc.index.base import VersionBase
from search_svc.index.journal import Journal, StoredItem
from search_svc.index.writes import Delete

_READ_AT_ONCE = 1000


@dataclass(frozen=True)
class Wanted:
    """Which items a list is of."""

    labels: frozenset[str] | None = None
    """None: of any."""
    batch_id: str = ""
    """Empty: of any, or none."""

    def has(self, item: StoredItem) -> bool:
        fits = self.labels is None or item.label in self.labels
        return fits and self.batch_id in ("", item.batch_id)


@dataclass(frozen=True)
class GalleryReader:
    """One gallery. Thread-safe."""

    base: VersionBase
    journal: Journal

    def item(self, item_id: str) -> StoredItem | None:
        entry = self.journal.last(item_id, self.base.journal_sequence)
        return entry.item if entry else self.base.item(item_id)

    def page(self, after: str, size: int, wanted: Wanted) -> list[tuple[str, StoredItem]]:
        """The first `size` items with ids after that one, in the order of their ids."""
        return list(islice(self._items(after, wanted), size))

    def candidates(self, write: Delete) -> tuple[str, ...]:
        """Return the ids of all items with the label or of the batch, and of some that were so once, each once."""
        after = self.base.journal_sequence
        ids = dict.fromkeys(self.base.of_label(write.label)) if write.label else {}
        ids |= dict.fromkeys(self.journal.of_label(write.label, after)) if write.label else {}
        ids |= dict.fromkeys(self.base.of_batch(write.batch_id)) if write.batch_id else {}
        ids |= dict.fromkeys(self.journal.of_batch(write.batch_id, after)) if write.batch_id else {}
        return tuple(ids)

    def _items(self, after: str, wanted: Wanted) -> Iterator[tuple[str, StoredItem]]:
        """Both are in the order of ids. What the journal says of an item is all there is to it."""
        rows = self._rows(after, wanted)
        row = next(rows, None)
        for item_id, item in self._written(after):
            while row is not None and (its_id := self.base.version.items.item_id(row)) < item_id:
                yield its_id, self.base.at(row)
                row = next(rows, None)
            if row is not None and self.base.version.items.item_id(row) == item_id:
                row = next(rows, None)
            if item is not None and wanted.has(item):
                yield item_id, item
        while row is not None:
            yield self.base.version.items.item_id(row), self.base.at(row)
            row = next(rows, None)

    def _written(self, after: str) -> Iterator[tuple[str, StoredItem | None]]:
        entries = self.journal.last_by_id(after, self.base.journal_sequence, _READ_AT_ONCE)
        while entries:
            for entry in entries:
                yield entry.item_id, entry.item
            entries = self.journal.last_by_id(entries[-1].item_id, self.base.journal_sequence, _READ_AT_ONCE)

    def _rows(self, after: str, wanted: Wanted) -> Iterator[int]:
        """Of the version, wanted ones alone: a filter of few is not asked of a million items one by one."""
        items = self.base.version.items
        place = items.place_by_id(after)
        rows = items.by_id[place:]
        if len(rows) and items.item_id(int(rows[0])) == after:
            rows = rows[1:]
        if (mask := self._mask(wanted)) is not None:
            rows = rows[mask[rows]]
        return (int(row) for row in rows)

    def _mask(self, wanted: Wanted) -> NDArray[np.bool_] | None:
        items = self.base.version.items
        if wanted.labels is None and not wanted.batch_id:
            return None
        mask = np.ones(len(items), np.bool_)
        if wanted.labels is not None:
            mask &= np.array([label.label in wanted.labels for label in items.labels], np.bool_)[items.label_of]
        if wanted.batch_id:
            of_batch = np.zeros(len(items), np.bool_)
            of_batch[items.rows_of_batch(wanted.batch_id)] = True
            mask &= of_batch
        return mask
