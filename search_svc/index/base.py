"""The items of an index version, for who writes to its gallery or looks items up."""

from dataclasses import dataclass

import numpy as np

from search_svc.index.journal import StoredItem
from search_svc.index.version import IndexVersion


@dataclass(frozen=True)
class VersionBase:
    """A `writes.Base`. Thread-safe."""

    version: IndexVersion

    @property
    def journal_sequence(self) -> int:
        return self.version.manifest.journal_sequence

    @property
    def model(self) -> str:
        return self.version.manifest.model

    @property
    def dimension(self) -> int:
        return self.version.manifest.dimension

    def item(self, item_id: str) -> StoredItem | None:
        row = self.version.items.row(item_id)
        return None if row is None else self.at(row)

    def at(self, row: int) -> StoredItem:
        items = self.version.items
        return StoredItem(
            label=items.labels[items.label_of[row]].label,
            uri=items.uri(row),
            batch_id=items.batch_id(row),
            attributes=items.attributes(row),
            embedding=self.version.embeddings[row].tobytes(),
            cut=items.cut(row),
        )

    def of_label(self, label: str) -> list[str]:
        items = self.version.items
        places = [place for place, known in enumerate(items.labels) if known.label == label]
        return [items.item_id(row) for row in np.flatnonzero(np.isin(items.label_of, places)).tolist()]

    def of_batch(self, batch_id: str) -> list[str]:
        items = self.version.items
        return [items.item_id(row) for row in items.rows_of_batch(batch_id).tolist()]
