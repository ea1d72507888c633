"""Decoding off the event loop: the photos of many calls share a fixed number of threads."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embedder_svc.photos import preprocess
from embedder_svc.photos.preprocess import Box, Limits, PhotoError, Resize

Out = TypeVar("Out")

Pixels = NDArray[np.uint8]
EncodedPhoto = tuple[bytes, Box | None]
"""The content of a photo's file, and the part of the photo that is wanted; None for all of it."""


class Decoder:
    """Decodes photos to the network's input. Photos of a call that ended before their turn are skipped."""

    def __init__(self, resize: Resize, limits: Limits, *, threads: int) -> None:
        self._resize = resize
        self._limits = limits
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def decode(self, photos: Sequence[EncodedPhoto]) -> list[Pixels | PhotoError]:
        """Return the pixels of each photo, or what is wrong with it."""
        return await self.map(self._decode, photos)

    async def map(self, function: Callable[..., Out], photos: Sequence[EncodedPhoto]) -> list[Out]:
        """Apply the function to each photo, in the decoding threads, and return the results."""
        loop = asyncio.get_running_loop()
        # gRPC cancels the caller when its client leaves or its deadline passes. That cancels these futures, and those that
        # wait for a thread leave the executor's queue.
        return await asyncio.gather(*(loop.run_in_executor(self._threads, function, *photo) for photo in photos))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _decode(self, content: bytes, crop: Box | None) -> Pixels | PhotoError:
        try:
            return preprocess.decode(content, resize=self._resize, crop=crop, limits=self._limits)
        except PhotoError as error:
            return error
