"""The means of labels: the mean embedding of all photos that a gallery has of a label, and how similar a query is to it.

A mean is kept as the sum of the embeddings. Those are float16, whose values are multiples of 2 ** -24, and float64 adds such
numbers without rounding as long as sums stay below 2 ** 29. So a sum does not depend on the order in which photos came, were
replaced or went: it is the same bits as one made anew of the photos that are there.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sum = NDArray[np.float64]
"""(dimension,) The sum of the embeddings of a label's photos."""

_BLOCK = 1024
"""Embeddings that are summed at a time: as float64 they take 16 MiB, if they have 2048 floats."""
_PAIRS = 1024
"""Pairs of a query and a label that are compared at a time: as float64 they take 32 MiB, if they have 2048 floats. A call may ask for 65,536."""
_NONE: Mapping[int, Sum] = MappingProxyType({})


def sum_by_label(embeddings: NDArray[np.float16], label_of: NDArray[np.int32], labels: int) -> NDArray[np.float64]:
    """Return the sum of the embeddings (N, dimension) of each label: (labels, dimension)."""
    sums = np.zeros((labels, embeddings.shape[1]))
    for start in range(0, len(embeddings), _BLOCK):
        of = label_of[start : start + _BLOCK]
        order = np.argsort(of, kind="stable")
        present, first = np.unique(of[order], return_index=True)
        sums[present] += np.add.reduceat(embeddings[start : start + _BLOCK][order].astype(np.float64), first)
    return sums


class Means:
    """The means of a gallery's labels, which are given by their numbers. Immutable and thread-safe."""

    def __init__(self, sums: NDArray[np.float64], changed: Mapping[int, Sum] = _NONE) -> None:
        """`sums` (labels, dimension) are those of an index version, `changed` those of labels that were written to since."""
        self._sums = sums
        self._changed = changed

    def with_changes(self, changed: Mapping[int, Sum]) -> "Means":
        """Return the means of the gallery after these labels of the version were written to."""
        return Means(self._sums, changed)

    def sum_of(self, label: int) -> Sum:
        """Return the sum of a label's photos. The caller must not write to it."""
        changed = self._changed.get(label)
        if changed is not None:
            return changed
        return self._sums[label] if label < len(self._sums) else np.zeros(self._sums.shape[1])

    def similarities(self, queries: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float64]:
        """Return the cosine of each query (Q, dimension) with the mean of each of its labels (Q, k): (Q, k).

        It is 0 where a label is -1, which stands for none, and where the mean has no direction. It is the same bits whatever
        other queries and labels are asked for.
        """
        places = labels.astype(np.int64) + 1 + np.arange(len(queries))[:, None] * (int(labels.max(initial=0)) + 2)
        _, first, back = np.unique(places, return_index=True, return_inverse=True)
        cosines = np.empty(len(first))
        for start in range(0, len(first), _PAIRS):
            some = first[start : start + _PAIRS]
            cosines[start : start + _PAIRS] = self._cosines(queries[some // labels.shape[1]], labels.ravel()[some])
        found: NDArray[np.float64] = cosines[back.ravel()].reshape(labels.shape)
        return found

    def _cosines(self, queries: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float64]:
        """Return the cosine of each query (P, dimension) with the mean of the label in the same place (P,): (P,)."""
        rows, asked = self._rows(labels), queries.astype(np.float64)
        products = np.einsum("pd,pd->p", rows, asked)
        lengths = np.einsum("pd,pd->p", rows, rows) * np.einsum("pd,pd->p", asked, asked)
        cosines: NDArray[np.float64] = np.divide(products, np.sqrt(lengths), out=np.zeros(len(rows)), where=lengths > 0)
        return cosines

    def _rows(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sums (P, dimension) of labels (P,)."""
        of_version = (labels >= 0) & (labels < len(self._sums))
        rows: NDArray[np.float64] = self._sums[np.where(of_version, labels, 0)]
        rows[~of_version] = 0
        for place, label in enumerate(labels.tolist() if self._changed else ()):
            if label in self._changed:
                rows[place] = self._changed[label]
        return rows
