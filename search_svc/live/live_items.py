"""The items of a living gallery: those of its version and those written since, by one row number.

Rows of the version come first, then rows of the delta in the order in which they were written. A row that is dead or gone can
still be looked up; nothing finds it any more.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_svc.index.items import Items
from search_svc.live.delta import Snapshot
from search_svc.voting.labels import Label
from search_svc.voting.vocabulary import Vocabulary
from search_svc.voting.years import Years, YearsNow


class LiveItems:
    """What Items is for a version, for one of its snapshots."""

    def __init__(self, base: Items, snapshot: Snapshot) -> None:
        self._base = base
        self._written = snapshot.delta.items
        self._label_of = snapshot.label_of
        self.counts = snapshot.counts

    @property
    def labels(self) -> Sequence[Label]:
        """By number. There may be more than `counts` has: they came later."""
        return self._base.vocabulary.labels

    @property
    def vocabulary(self) -> Vocabulary:
        return self._base.vocabulary

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """The number of photos of each label."""
        return _Sizes(self.vocabulary, self.counts)

    @property
    def years(self) -> Years:
        """Of the models."""
        return YearsNow(self.vocabulary, self.counts)

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """The labels of rows, as numbers."""
        late = rows >= len(self._base)
        found = self._base.label_of[np.where(late, 0, rows)]
        found[late] = self._label_of[rows[late] - len(self._base)]
        return found

    def take(self, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """The item ids and the uris of rows."""
        of_version = len(self._base)
        ids, uris = self._base.take([row for row in rows if row < of_version])
        if len(ids) == len(rows):
            return ids, uris
        names = iter(zip(ids, uris, strict=True))
        pairs = [next(names) if row < of_version else self._names(row - of_version) for row in rows]
        return [item_id for item_id, _ in pairs], [uri for _, uri in pairs]

    def _names(self, row: int) -> tuple[str, str]:
        item = self._written[row]
        return item.item_id, item.uri


class _Sizes(Mapping[str, int]):
    """Looks up what is asked for: a dict of all labels would have to be made for every snapshot."""

    def __init__(self, vocabulary: Vocabulary, counts: NDArray[np.int64]) -> None:
        self._vocabulary = vocabulary
        self._counts = counts

    def __getitem__(self, label: str) -> int:
        place = self._vocabulary.place(label)
        if place is None or place >= len(self._counts):
            raise KeyError(label)
        return int(self._counts[place])

    def __iter__(self) -> Iterator[str]:
        return (label.label for label in self._vocabulary.labels[: len(self._counts)])

    def __len__(self) -> int:
        return len(self._counts)
