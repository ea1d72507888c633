"""The labels of a gallery by number, and what filters and answers look up in them.

A living gallery gets labels that it did not have. They are only ever added, so all that was told of the first n labels stays
true, and snapshots of any age share one vocabulary. Whether a label has photos at the moment is not its affair.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search_svc.voting.growing import Growing
from search_svc.voting.labels import Label, normalise
from search_svc.voting.vote import Node, path


class Vocabulary:
    """One thread adds; any number read. A place may be beyond those that a reader knows of: it is to pass over it."""

    def __init__(self, labels: Iterable[Label] = ()) -> None:
        self.labels: list[Label] = []
        self._places: dict[str, dict[str, list[int]]] = {"makes": {}, "models": {}, "labels": {}}
        self._years = Growing(np.float64)
        self._of_model: dict[Node, list[int]] = defaultdict(list)
        for label in labels:
            self.add(label)

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, name: str) -> int | None:
        """The number of the label of that name."""
        found = self._places["labels"].get(name)
        return found[0] if found else None

    def add(self, label: Label) -> int:
        """The number of a label that was not there."""
        place = len(self.labels)
        values = {"makes": normalise(label.make), "models": normalise(label.model), "labels": label.label}
        self._years.append(np.nan if label.year is None else label.year)
        for field, value in values.items():
            self._places[field].setdefault(value, []).append(place)
        self._of_model[path(label)[:2]].append(place)
        self.labels.append(label)
        return place

    def places(self, field: str) -> Mapping[str, Sequence[int]]:
        """By value of a filter's field, makes and models as `labels.normalise` leaves them: the labels that have it.

        The empty value stands for "not known".
        """
        return self._places[field]

    def years(self, count: int) -> NDArray[np.float64]:
        """(count,) of the first labels; not a number where there is none."""
        return self._years.first(count)

    def of_model(self, model: Node) -> Sequence[int]:
        return self._of_model.get(model, ())
