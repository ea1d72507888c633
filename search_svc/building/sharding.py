"""Which rows of a gallery go to which shard."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def balanced(items: int, shards: int) -> tuple[range, ...]:
    """Shard s of N takes rows s, s + N, s + 2 N...: an even part of each label, and so of the work of any query.

    A gallery comes sorted by label, and a query's neighbours are of a few labels: of contiguous parts, one would do nearly
    all the work.
    """
    return tuple(range(shard, items, shards) for shard in range(shards))


def by_label(label_of: NDArray[np.int64], shards: int) -> tuple[range, ...]:
    """Contiguous parts, cut where a label ends: each as near to an even part as that allows, and none empty.

    `label_of` is the label of each row, sorted. There are as many labels as shards, or more.
    """
    ends = [*(np.flatnonzero(np.diff(label_of)) + 1).tolist(), len(label_of)]
    edges = [0]
    for shard in range(1, shards):
        # Labels are left for this shard, and for every one after it.
        free = ends[ends.index(edges[-1]) + 1 if edges[-1] else 0 : len(ends) - (shards - shard)]
        even = len(label_of) * shard / shards
        edges.append(min(free, key=lambda end: abs(end - even)))
    return tuple(range(*edge) for edge in pairwise([*edges, len(label_of)]))
