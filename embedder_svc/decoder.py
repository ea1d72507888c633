"""Decoding off the event loop: the photos of many calls share a fixed number of threads."""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from embedder_svc import preprocess
from embedder_svc.preprocess import Box, Limits, PhotoError, Resize
from svckit.errors import Reason, ServiceError

Pixels = NDArray[np.uint8]
EncodedPhoto = tuple[bytes, Box | None]
"""A file's content, and the part of the photo that is wanted."""


class Decoder:
    """Photos to the network's input. Photos of a call that was cancelled or expired before their turn are skipped."""

    def __init__(self, resize: Resize, limits: Limits, *, threads: int) -> None:
        self._resize = resize
        self._limits = limits
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def decode(self, photos: Sequence[EncodedPhoto], *, deadline: float | None) -> list[Pixels | PhotoError]:
        """The pixels of each photo, or what is wrong with it. `deadline` is a time of `time.monotonic`.

        Raises ServiceError, DEADLINE_EXCEEDED.
        """
        loop = asyncio.get_running_loop()
        expiry = math.inf if deadline is None else deadline
        # Cancelling the caller cancels these, and so takes those that wait for a thread out of its queue.
        jobs = (loop.run_in_executor(self._threads, self._decode, *photo, expiry) for photo in photos)
        return await asyncio.gather(*jobs)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _decode(self, content: bytes, crop: Box | None, expiry: float) -> Pixels | PhotoError:
        if time.monotonic() >= expiry:
            raise ServiceError(Reason.DEADLINE_EXCEEDED, "the deadline passed before all photos were decoded")
        try:
            return preprocess.decode(content, resize=self._resize, crop=crop, limits=self._limits)
        except PhotoError as error:
            return error
