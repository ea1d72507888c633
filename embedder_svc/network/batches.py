"""Batches of photos as a session takes them, and the sizes that a GPU is given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def filled_up(pixels: Sequence[Pixels] | Pixels, size: int) -> Pixels:
    """Return a batch (size, height, width, 3) of at most `size` photos, filled up with black; copied only if necessary."""
    if isinstance(pixels, np.ndarray) and len(pixels) == size:
        return pixels
    if size == 1:
        return pixels[0][None]
    batch = np.zeros((size, *pixels[0].shape), np.uint8)
    for row, photo in zip(batch, pixels, strict=False):
        row[:] = photo
    return batch


def buckets(most: int) -> tuple[int, ...]:
    """Return the powers of two below `most`, and `most`: at worst half of a batch is padding."""
    return (*(1 << power for power in range((most - 1).bit_length())), most)


def signature(values: Sequence[Any]) -> list[tuple[str, str, tuple[int | None, ...]]]:
    """Return name, type and shape of each of a session's inputs or outputs; None stands for a side of any length."""
    return [
        (value.name, value.type, tuple(side if isinstance(side, int) else None for side in value.shape))
        for value in values
    ]
