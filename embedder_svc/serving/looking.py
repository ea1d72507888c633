"""The parts of a photo that are wanted, as pixels: a crop or the whole is decoded, cars are looked for and cut out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedder_svc.network import cars
from embedder_svc.network.cars import WHOLE, Car, Cut, Subject
from embedder_svc.network.detector import Detector, View
from embedder_svc.photos.preprocess import Box, Decoded
from embedder_svc.serving.decoder import Decoder, Pixels
from svckit.batcher import Batcher
from svckit.room import Room

EncodedPhoto = tuple[bytes, Box | Subject]
"""The content of a photo's file, and the part of the photo that is wanted."""


@dataclass(frozen=True)
class Prepared:
    """The parts of one photo, and when they came to be, as times of `time.monotonic`."""

    pixels: Sequence[Pixels]
    cuts: Sequence[Cut]
    decoded: float
    looked: float | None = None
    """When its cars were found and cut out; None if none were looked for."""


@dataclass(frozen=True)
class Found:
    """The cars of one photo, and when they were found."""

    cars: Sequence[Car]
    decoded: float
    looked: float


class Finder:
    """Finds cars in photos. A photo is decoded once, in the decoder's threads; detectors run in a batcher of their own.

    A decoded photo waits for the detector, so only so many are there at once: that bounds the memory.
    """

    def __init__(
        self, decoder: Decoder, detector: Detector, batcher: Batcher[View, list[Car]], without: Callable[[], None]
    ) -> None:
        """`without` is called for each photo in which no car is found."""
        self._decoder = decoder
        self.info = detector.info
        self._batcher = batcher
        self._without = without
        # Enough for each decoding thread and each lane to have the next photo waiting while it works on one.
        self._room = Room(2 * decoder.threads + 2 * detector.lanes * detector.max_batch)

    async def find(self, content: bytes, deadline: float | None) -> Found:
        """Return the cars of a photo. Raise PhotoError, and what Batcher raises."""
        async with self._room:
            _, found = await self._look(content, deadline)
        return found

    async def prepare(self, content: bytes, subject: Subject, deadline: float | None) -> Prepared:
        """Return the main car or every car of a photo, or all of it if there is none. Raise PhotoError, and what Batcher raises."""
        async with self._room:
            photo, found = await self._look(content, deadline)
            wanted = found.cars[:1] if subject is Subject.MAIN_CAR else found.cars
            cuts = cars.cuts(wanted, photo.size, self.info)
            pixels = await self._decoder.run(lambda: [photo.cut(cut.box) for cut in cuts])
        return Prepared(pixels, cuts, found.decoded, time.monotonic())

    async def _look(self, content: bytes, deadline: float | None) -> tuple[Decoded, Found]:
        photo, view = await self._decoder.run(self._open, content)
        decoded = time.monotonic()
        batched = await self._batcher.submit([view], deadline=deadline)
        if not batched.outputs[0]:
            self._without()
        return photo, Found(batched.outputs[0], decoded, time.monotonic())

    def _open(self, content: bytes) -> tuple[Decoded, View]:
        photo = self._decoder.open(content)
        return photo, View(photo.view(self.info.input_size), photo.size)


class Preparer:
    """Makes of each photo the parts that are wanted of it."""

    def __init__(self, decoder: Decoder, finder: Finder | None = None) -> None:
        self.finder = finder
        self._decoder = decoder

    async def prepare(self, photo: EncodedPhoto, deadline: float | None) -> Prepared:
        """Return the parts of a photo. Raise PhotoError, and what Batcher raises. Cars are wanted only where there is a finder."""
        content, wanted = photo
        if isinstance(wanted, Subject) and wanted is not Subject.WHOLE:
            assert self.finder is not None
            return await self.finder.prepare(content, wanted, deadline)
        crop = wanted if isinstance(wanted, Box) else None
        pixels = await self._decoder.run(self._decoder.decode, content, crop)
        return Prepared([pixels], [Cut(crop or WHOLE)], time.monotonic())
