"""The photos that each step sees, brought to the device before the step asks for them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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


def fetch(
    pixels: NDArray[np.uint8], batches: Iterable[NDArray[np.int64]], device: torch.device
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


def _read(
    pixels: NDArray[np.uint8], chosen: NDArray[np.int64], device: torch.device
) -> tuple[NDArray[np.int64], Tensor]:
    photos = torch.from_numpy(pixels[chosen])
    if device.type == "cuda":
        photos = photos.pin_memory().to(device, non_blocking=True)
    return chosen, photos
