"""The items of a live gallery: those of its version and those of its delta, under one row number.

Rows of the version come first, then rows of the delta in the order in which they were written. A row that is dead or gone can
still be looked up, though no search finds it any more.
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
    """Offers what Items offers of a version, of a version and a snapshot of its delta."""

    def __init__(self, base: Items, snapshot: Snapshot) -> None:
        self._base = base
        self._delta_items = snapshot.delta.items
        self._label_of = snapshot.label_of
        self.counts = snapshot.counts

    @property
    def labels(self) -> Sequence[Label]:
        """The labels, by number. There may be more than in `counts`: those were added after the snapshot was taken."""
        return self._base.vocabulary.labels

    @property
    def vocabulary(self) -> Vocabulary:
        return self._base.vocabulary

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Label -> number of its photos."""
        return _Sizes(self.vocabulary, self.counts)

    @property
    def years(self) -> Years:
        """The years in which there are photos of each model."""
        return YearsNow(self.vocabulary, self.counts)

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the labels of rows, as numbers, in the shape of `rows`."""
        of_delta = rows >= len(self._base)
        found = self._base.label_of[np.where(of_delta, 0, rows)]
        found[of_delta] = self._label_of[rows[of_delta] - len(self._base)]
        return found

    def take(self, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """Return the item ids and the uris of rows."""
        of_version = len(self._base)
        ids, uris = self._base.take([row for row in rows if row < of_version])
        if len(ids) == len(rows):
            return ids, uris
        names = iter(zip(ids, uris, strict=True))
        pairs = [next(names) if row < of_version else self._names(row - of_version) for row in rows]
        return [item_id for item_id, _ in pairs], [uri for _, uri in pairs]

    def _names(self, row: int) -> tuple[str, str]:
        item = self._delta_items[row]
        return item.item_id, item.uri


class _Sizes(Mapping[str, int]):
    """Label -> number of its photos, looked up when it is asked for: no dict of all labels is made for each snapshot."""

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
