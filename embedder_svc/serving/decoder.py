"""Decoding off the event loop: the photos of many calls share a fixed number of threads, and so does the cutting of cars out of them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedder_svc.photos import preprocess
from embedder_svc.photos.preprocess import Box, Decoded, Limits, Resize
from svckit.room import Room

Out = TypeVar("Out")
Given = ParamSpec("Given")

Pixels = NDArray[np.uint8]


class Decoder:
    """Decodes photos to the network's input, in its threads, whose callers take turns. What a call wanted that ended before its
    turn is skipped.
    """

    def __init__(self, resize: Resize, limits: Limits, *, threads: int) -> None:
        self._resize = resize
        self._limits = limits
        self.threads = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        # Each thread has the next photo waiting while it works on one.
        self._room = Room(2 * threads)

    def decode(self, content: bytes, crop: Box | None) -> Pixels:
        """Return the pixels of a photo, or of the part of it in `crop`. Raise PhotoError. To be `run`."""
        return preprocess.decode(content, resize=self._resize, crop=crop, limits=self._limits)

    def open(self, content: bytes) -> Decoded:
        """Decode a photo to look for cars in it, and to cut them out. Raise PhotoError. To be `run`."""
        return Decoded(content, resize=self._resize, limits=self._limits)

    async def run(self, function: Callable[Given, Out], *args: Given.args, **kwargs: Given.kwargs) -> Out:
        """Call the function in a decoding thread."""
        # gRPC cancels the caller when its client leaves or its deadline passes. That cancels this future, and if it waits for a
        # thread it leaves the executor's queue.
        async with self._room:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
