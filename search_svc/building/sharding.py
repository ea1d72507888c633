"""Divides the rows of a gallery among shards."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def balanced(items: int, shards: int) -> tuple[range, ...]:
    """Return the rows of each shard: shard s of N gets rows s, s + N, s + 2 N..., and so an even part of each label.

    Galleries come sorted by label, and a query's neighbours have few labels: if shards were contiguous, one would do
    nearly all the work of a query.
    """
    return tuple(range(shard, items, shards) for shard in range(shards))


def by_label(label_of: NDArray[np.int64], shards: int) -> tuple[range, ...]:
    """Return the rows of each shard: contiguous, cut where a label ends, as even as that allows, and none empty.

    `label_of` (items,) is the label of each row, sorted. There are at least as many labels as shards.
    """
    ends = [*(np.flatnonzero(np.diff(label_of)) + 1).tolist(), len(label_of)]
    edges = [0]
    for shard in range(1, shards):
        # At least one label is left for this shard, and for every shard after it.
        free = ends[ends.index(edges[-1]) + 1 if edges[-1] else 0 : len(ends) - (shards - shard)]
        even = len(label_of) * shard / shards
        edges.append(min(free, key=lambda end: abs(end - even)))
    return tuple(range(*edge) for edge in pairwise([*edges, len(label_of)]))
