"""The numbered labels of a gallery, with look-ups for filters and answers.

A gallery that is written to gets new labels. Labels are only ever added, so the first n never change, and snapshots of any
age share one vocabulary. It does not know whether a label has photos at the moment.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from vmmr.label_names import normalise

from search_svc.voting.growing import Growing
from search_svc.voting.labels import Label
from search_svc.voting.vote import Node, path


class Vocabulary:
    """The labels of a gallery. One thread adds labels while any number of threads read.

    A label's number is its place in `labels`. Look-ups may return places that were added after a reader's snapshot: the
    reader must ignore these.
    """

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
        """Return the number of the label with this name; None if there is none."""
        found = self._places["labels"].get(name)
        return found[0] if found else None

    def add(self, label: Label) -> int:
        """Add a label that is not there yet, and return its number."""
        place = len(self.labels)
        values = {"makes": normalise(label.make), "models": normalise(label.model), "labels": label.label}
        self._years.append(np.nan if label.year is None else label.year)
        for field, value in values.items():
            self._places[field].setdefault(value, []).append(place)
        self._of_model[path(label)[:2]].append(place)
        self.labels.append(label)
        return place

    def places(self, field: str) -> Mapping[str, Sequence[int]]:
        """Return, for each value of a filter's field (makes, models or labels), the numbers of the labels that have it.

        Makes and models are normalised (`label_names.normalise`). An empty one means "not known".
        """
        return self._places[field]

    def years(self, count: int) -> NDArray[np.float64]:
        """Return the years (count,) of the first labels; NaN for a label without a year."""
        return self._years.first(count)

    def of_model(self, model: Node) -> Sequence[int]:
        """Return the numbers of the labels of a (make, model)."""
        return self._of_model.get(model, ())
