"""Writes to a gallery: what the journal's writer is given, and what it returns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from search_svc.index.journal import StoredItem


class Base(Protocol):
    """The items of an index version: what the journal's entries after `journal_sequence` change."""

    @property
    def journal_sequence(self) -> int: ...

    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def item(self, item_id: str) -> StoredItem | None: ...

    def of_label(self, label: str) -> list[str]:
        """Ids of the items with that label."""
        ...

    def of_batch(self, batch_id: str) -> list[str]:
        """Ids of the items that were added in that batch."""
        ...


@dataclass(frozen=True)
class Add:
    """Items to be there, whatever was there under their ids."""

    items: Mapping[str, StoredItem]
    deadline: float = math.inf
    """When its caller stops waiting, as a time of `time.monotonic`."""
    model: str = ""
    """Fingerprint of the model that made the embeddings; empty: the index's, whichever that is."""
    label_prefixes: tuple[str, ...] = ()
    """Beginnings of the labels that its caller may add, and whose items it may replace; empty: any label."""


@dataclass(frozen=True)
class Delete:
    """Items to be gone: those with these ids, with this label, and of this batch."""

    item_ids: tuple[str, ...] = ()
    label: str = ""
    batch_id: str = ""
    deadline: float = math.inf
    only: tuple[str, ...] | None = None
    """Of the items with the label and of the batch, delete only those with these ids; None: all of them."""
    label_prefixes: tuple[str, ...] = ()
    """Beginnings of the labels whose items its caller may delete; empty: any label."""

    def selects(self, item: StoredItem) -> bool:
        """Return whether the item has the label, or is of the batch."""
        return item.label == self.label or bool(self.batch_id and item.batch_id == self.batch_id)


Write = Add | Delete


@dataclass(frozen=True)
class WriteResult:
    """A write that is on the disk."""

    sequence: int
    """Number of the write's last entry: a reader of the journal up to here knows of it."""
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    """Items that were there already, the same in everything."""
    deleted: int = 0
    gone: Mapping[str, str] = field(default_factory=dict)
    """Labels of the items that were deleted or replaced, by item id."""
