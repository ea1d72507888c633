"""The photos that each step sees, brought to the device before the step asks for them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8] | Tensor
"""Pixels (N, S, S, 3) RGB of photos: in memory or a memory-mapped file, or on the device that trains."""

_UPLOADED = 256
"""The number of photos that are brought to a GPU at a time."""


@dataclass(frozen=True)
class Order:
    """An order of the photos for every epoch, in whole batches; the few left over change with the epoch.

    It is a function of the seed and the epoch alone, so a resumed run sees what an uninterrupted one would.
    """

    photos: int
    batch: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps in one epoch."""
        return self.photos // self.batch

    def batches(self, step: int) -> Iterator[NDArray[np.int64]]:
        """Yield the batches that are left of the epoch to which `step`, counted over the whole run, belongs."""
        epoch, done = divmod(step, self.steps)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.photos)
        yield from order[: self.steps * self.batch].reshape(self.steps, self.batch)[done:]


def on_device(pixels: Pixels, device: torch.device) -> Pixels:
    """Return the pixels on the GPU if they take at most half of its free memory, and otherwise as they are.

    A batch is then chosen on the GPU itself, and no step waits for the disk or the bus.
    """
    if isinstance(pixels, Tensor) or device.type == "cpu" or pixels.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return pixels
    held = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(pixels), _UPLOADED):
        part = slice(start, start + _UPLOADED)
        held[part] = torch.from_numpy(np.array(pixels[part]))  # a copy: torch takes no read-only arrays
    return held


def fetch(
    pixels: Pixels, batches: Iterable[NDArray[np.int64]], device: torch.device
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Yield each batch's photo numbers and pixels (N, S, S, 3) on the device, read one batch ahead in a thread."""
    numbers = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for chosen in numbers:
            ahead = pool.submit(_read, pixels, chosen, device)
            if waiting is not None:
                yield waiting.result()
            waiting = ahead
        if waiting is not None:
            yield waiting.result()


def _read(pixels: Pixels, chosen: NDArray[np.int64], device: torch.device) -> tuple[NDArray[np.int64], Tensor]:
    if isinstance(pixels, Tensor):
        return chosen, pixels[torch.from_numpy(chosen).to(pixels.device)]
    photos = torch.from_numpy(pixels[chosen])
    if device.type == "cuda":
        photos = photos.pin_memory().to(device, non_blocking=True)
    return chosen, photos
