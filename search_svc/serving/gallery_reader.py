"""Reads the items of a live gallery, by id and in pages: those of a version, and those that the journal says since.

The journal itself is read, so what any process acknowledged is found at once, whether or not the view holds it yet.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from search_svc.index.base import VersionBase
from search_svc.index.journal import Journal, StoredItem
from search_svc.index.writes import Delete
from svckit.access.callers import check_label

_READ_AT_ONCE = 1000


@dataclass(frozen=True)
class ItemFilter:
    """Which items a list holds."""

    labels: frozenset[str] | None = None
    """Items with one of these labels; None: with any label."""
    batch_id: str = ""
    """Items of this batch; empty: of any batch, or of none."""

    def matches(self, item: StoredItem) -> bool:
        fits = self.labels is None or item.label in self.labels
        return fits and self.batch_id in ("", item.batch_id)


@dataclass(frozen=True)
class GalleryReader:
    """Reads the items of one version and the journal. Thread-safe."""

    base: VersionBase
    journal: Journal

    def item(self, item_id: str) -> StoredItem | None:
        """Return the item, or None if the gallery has none of this id."""
        entry = self.journal.last(item_id, self.base.journal_sequence)
        return entry.item if entry else self.base.item(item_id)

    def page(self, after: str, size: int, wanted: ItemFilter) -> list[tuple[str, StoredItem]]:
        """Return the first `size` items with ids greater than `after`, by id."""
        return list(islice(self._items(after, wanted), size))

    def candidates(self, write: Delete) -> tuple[str, ...]:
        """Return the ids of all items with the label or of the batch, and of some that were so once, each once."""
        after = self.base.journal_sequence
        ids = dict.fromkeys(self.base.of_label(write.label)) if write.label else {}
        ids |= dict.fromkeys(self.journal.of_label(write.label, after)) if write.label else {}
        ids |= dict.fromkeys(self.base.of_batch(write.batch_id)) if write.batch_id else {}
        ids |= dict.fromkeys(self.journal.of_batch(write.batch_id, after)) if write.batch_id else {}
        return tuple(ids)

    def check_labels(self, write: Delete, ids: Iterable[str]) -> None:
        """Raise ServiceError, LABEL_NOT_ALLOWED, if the write is to delete an item whose label its caller may not delete."""
        for item_id in ids if write.label_prefixes else ():
            item = self.item(item_id)
            if item is not None and write.selects(item):
                check_label(write.label_prefixes, item.label)

    def _items(self, after: str, wanted: ItemFilter) -> Iterator[tuple[str, StoredItem]]:
        """Merge the version's rows and the journal's entries, both by id. Where both have an id, the journal's counts."""
        rows = self._rows(after, wanted)
        row = next(rows, None)
        for item_id, item in self._journal_items(after):
            while row is not None and (its_id := self.base.version.items.item_id(row)) < item_id:
                yield its_id, self.base.at(row)
                row = next(rows, None)
            if row is not None and self.base.version.items.item_id(row) == item_id:
                row = next(rows, None)
            if item is not None and wanted.matches(item):
                yield item_id, item
        while row is not None:
            yield self.base.version.items.item_id(row), self.base.at(row)
            row = next(rows, None)

    def _journal_items(self, after: str) -> Iterator[tuple[str, StoredItem | None]]:
        """Yield what the journal last says of each id greater than `after`, by id; None for a deletion."""
        entries = self.journal.last_by_id(after, self.base.journal_sequence, _READ_AT_ONCE)
        while entries:
            for entry in entries:
                yield entry.item_id, entry.item
            entries = self.journal.last_by_id(entries[-1].item_id, self.base.journal_sequence, _READ_AT_ONCE)

    def _rows(self, after: str, wanted: ItemFilter) -> Iterator[int]:
        """Return the rows of the version that fit the filter, by id. A mask finds them: a gallery may have a million items."""
        items = self.base.version.items
        place = items.place_by_id(after)
        rows = items.by_id[place:]
        if len(rows) and items.item_id(int(rows[0])) == after:
            rows = rows[1:]
        if (mask := self._mask(wanted)) is not None:
            rows = rows[mask[rows]]
        return (int(row) for row in rows)

    def _mask(self, wanted: ItemFilter) -> NDArray[np.bool_] | None:
        """Return (items,) which rows of the version fit the filter; None if all do."""
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
