"""From encoded photos to embeddings, for callers on one event loop: admission, decoding, finding cars, batches, the network.

The servicers of both protocols (`service` and `kserve`) turn their requests into photos, and embeddings into their replies.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embedder_svc.network.cars import Car, Cut, Subject
from embedder_svc.network.model import Model
from embedder_svc.photos.preprocess import PhotoError, PhotoReason
from embedder_svc.serving.admission import Admission
from embedder_svc.serving.cache import Cache, Rows, key_of
from embedder_svc.serving.decoder import Decoder, Pixels
from embedder_svc.serving.looking import EncodedPhoto, Finder, Found, Prepared, Preparer
from svckit import stages
from svckit.batcher import Batcher
from svckit.errors import Reason, ServiceError, Violation

Embedding = NDArray[np.float32]
Done = TypeVar("Done")

_CARS = (Subject.MAIN_CAR, Subject.EVERY_CAR)


@dataclass(frozen=True)
class Times:
    """Where the time of one call went, in milliseconds."""

    decode_ms: float
    """From the call's arrival until its last photo was decoded."""
    detect_ms: float = 0.0
    """From then on until the cars in all were found and cut out."""
    queue_ms: float = 0.0
    """Time that the parts waited for the network."""
    infer_ms: float = 0.0
    """Time that the network ran the batches that they were in."""


@dataclass(frozen=True)
class Embedded:
    """The embeddings of one call's photos, in the order of the photos."""

    embeddings: NDArray[np.float32]
    """(R, dimension)."""
    images: Sequence[int]
    """For each row, the photo's number in the call."""
    cuts: Sequence[Cut]
    """For each row, the part of the photo."""
    times: Times


@dataclass(frozen=True)
class Detected:
    """The cars of each of one call's photos."""

    cars: Sequence[Sequence[Car]]
    times: Times


class Pipeline:
    """Embeds photos. A server has one, shared by its servicers."""

    def __init__(
        self,
        model: Model,
        decoder: Decoder,
        batcher: Batcher[Pixels, Embedding],
        *,
        max_images: int,
        max_queue: int,
        finder: Finder | None = None,
        cache: Cache | None = None,
    ) -> None:
        """Take at most `max_images` photos from one call, and `max_queue` from all calls at once, or a quarter more: see Admission.

        The queues of the batcher and of the finder's must hold as many as come in.
        """
        self.model = model
        self._decoder = decoder
        self._preparer = Preparer(decoder, finder)
        self._finder = finder
        self._batcher = batcher
        self._max_queue = max_queue
        self._admission = Admission(max_queue)
        self.max_images = max_images
        self._cache = cache

    @property
    def default(self) -> Subject:
        """The part of a photo that is embedded if a caller does not say."""
        return Subject.MAIN_CAR if self._finder else Subject.WHOLE

    async def embed(self, photos: Sequence[EncodedPhoto], *, field: str = "images", deadline: float | None) -> Embedded:
        """Return the embeddings of 1 to `max_images` photos, all or none; `deadline` is a time of `time.monotonic`.

        `field` is the path of the photos in the request, for violations: the fourth photo is `images[3]`.
        Raise ServiceError: INVALID_IMAGE_COUNT; NO_DETECTOR; INVALID_IMAGE, with a violation for each bad photo; and what
        Admission and Batcher raise.
        """
        arrived = time.monotonic()
        self.check_count(len(photos), field)
        self._check_subjects([wanted for _, wanted in photos], field)
        keys = await self._keys(photos) if self._cache else []
        rows = {number: kept for number, key in enumerate(keys) if self._cache and (kept := self._cache.get(key))}
        new = {number: photo for number, photo in enumerate(photos) if number not in rows}
        times = Times(_ms_since(arrived))
        if new:
            found, times = await self._embed(new, arrived, field, deadline)
            rows |= found
            for number, key in enumerate(keys):
                if self._cache and number in found:
                    self._cache.put(key, found[number])
        return _joined([rows[number] for number in range(len(photos))], times)

    async def _keys(self, photos: Sequence[EncodedPhoto]) -> list[bytes]:
        """Return the photos' keys in the cache. They are made in the decoding threads: a photo may have millions of bytes."""
        return await asyncio.gather(*(self._decoder.run(key_of, *photo) for photo in photos))

    async def detect(self, photos: Sequence[bytes], *, field: str = "images", deadline: float | None) -> Detected:
        """Return the cars in 1 to `max_images` photos, all or none. Raise what `embed` raises."""
        arrived = time.monotonic()
        self.check_count(len(photos), field)
        self._check_subjects([Subject.MAIN_CAR] * len(photos), field)
        assert self._finder is not None  # as was checked
        with self._admission.admit(len(photos), deadline):
            results = await _all(self._finder.find(content, deadline) for content in photos)
            found = _all_good(dict(enumerate(results)), field)
        times = _times(found.values(), arrived)
        _write_down(times, arrived)
        return Detected([each.cars for each in found.values()], times)

    async def _embed(
        self, photos: Mapping[int, EncodedPhoto], arrived: float, field: str, deadline: float | None
    ) -> tuple[dict[int, Rows], Times]:
        """Embed photos, which are given by their number in the call."""
        with self._admission.admit(self._most_rows(wanted for _, wanted in photos.values()), deadline) as stay:
            results = await _all(self._preparer.prepare(photo, deadline) for photo in photos.values())
            prepared = _all_good(dict(zip(photos, results, strict=True)), field)
            pixels = [part for photo in prepared.values() for part in photo.pixels]
            stay.become(len(pixels))
            _write_down(_times(prepared.values(), arrived), arrived)
            batched = await self._batcher.submit(pixels, deadline=deadline)
        outputs = iter(batched.outputs)
        rows = {
            number: (np.stack([next(outputs) for _ in photo.cuts]), photo.cuts) for number, photo in prepared.items()
        }
        return rows, _times(prepared.values(), arrived, queue_ms=batched.queue_ms, infer_ms=batched.run_ms)

    def _most_rows(self, wanted: Iterable[object]) -> int:
        """Return how many embeddings photos may get, of which this is wanted."""
        cars = self._finder.info.max_cars if self._finder else 1
        return sum(cars if each is Subject.EVERY_CAR else 1 for each in wanted)

    def check_room(self, deadline: float | None) -> None:
        """Raise ServiceError, QUEUE_FULL, if not even one more photo can be admitted."""
        self._admission.check(1, deadline)

    def check_count(self, count: int, field: str) -> None:
        """Raise ServiceError, INVALID_IMAGE_COUNT, unless a call may have so many photos; `embed` does so too, but later."""
        most = self.max_images
        if not 1 <= count <= most:
            raise _bad_count(f"send 1 to {most} images, not {count}", f"must be 1 to {most}, got {count}", most, field)

    def _check_subjects(self, wanted: Sequence[object], field: str) -> None:
        """Raise ServiceError: NO_DETECTOR if cars are wanted and nothing finds them, INVALID_IMAGE_COUNT if there may be too many."""
        if self._finder is None and (numbers := [i for i, each in enumerate(wanted) if each in _CARS]):
            raise ServiceError(
                Reason.NO_DETECTOR,
                f"model {self.model.info.name!r} has no detector: it embeds the whole photo, or a crop",
                violations=[Violation(f"{field}[{i}]", Reason.NO_DETECTOR, "asks for cars") for i in numbers],
                metadata={"model": self.model.info.name},
            )
        most, rows = self._max_queue, self._most_rows(wanted)
        if rows > most:
            fit = most // self._most_rows([Subject.EVERY_CAR])
            said = f"with every car of each, {len(wanted)} images may give {rows} embeddings, the server holds {most}"
            raise _bad_count(f"{said}: send at most {fit}", said, fit, field)


async def _all(works: Iterable[Awaitable[Done]]) -> list[Done | PhotoError]:
    """Wait for all of the work, side by side, and return each result, or what is wrong with the photo. Raise the first other error."""
    results = await asyncio.gather(*works, return_exceptions=True)
    good: list[Done | PhotoError] = []
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, PhotoError):
            raise result
        good.append(result)
    return good


def _joined(photos: Sequence[Rows], times: Times) -> Embedded:
    images = [number for number, (_, cuts) in enumerate(photos) for _ in cuts]
    cuts = [cut for _, cuts in photos for cut in cuts]
    return Embedded(np.concatenate([rows for rows, _ in photos]), images, cuts, times)


def _times(
    photos: Iterable[Prepared | Found], arrived: float, *, queue_ms: float = 0.0, infer_ms: float = 0.0
) -> Times:
    photos = list(photos)
    decoded = max(photo.decoded for photo in photos)
    looked = max((photo.looked for photo in photos if photo.looked), default=decoded)
    return Times(1e3 * (decoded - arrived), 1e3 * max(0.0, looked - decoded), queue_ms, infer_ms)


def _write_down(times: Times, arrived: float) -> None:
    """Write down the stages before the network, which follow each other as the reply's times do."""
    decoded = arrived + times.decode_ms / 1e3
    stages.add("decode", arrived, decoded)
    if times.detect_ms:
        stages.add("detect", decoded, decoded + times.detect_ms / 1e3)


def _ms_since(arrived: float) -> float:
    return 1e3 * (time.monotonic() - arrived)


def _all_good(results: Mapping[int, Done | PhotoError], field: str) -> dict[int, Done]:
    """Return the results of all photos. Raise one ServiceError, INVALID_IMAGE, that names every bad photo, if there are any."""
    bad = [_violation(f"{field}[{i}]", result) for i, result in results.items() if isinstance(result, PhotoError)]
    if bad:
        raise ServiceError(
            Reason.INVALID_IMAGE,
            f"{len(bad)} of {len(results)} images can't be used; {bad[0].field}: {bad[0].description}",
            violations=bad,
        )
    return {number: result for number, result in results.items() if not isinstance(result, PhotoError)}


def _violation(photo: str, error: PhotoError) -> Violation:
    part = "crop" if error.reason == PhotoReason.INVALID_CROP else "content"
    return Violation(f"{photo}.{part}", error.reason, error.description)


def _bad_count(message: str, violation: str, most: int, field: str) -> ServiceError:
    return ServiceError(
        Reason.INVALID_IMAGE_COUNT,
        message,
        violations=[Violation(field, Reason.INVALID_IMAGE_COUNT, violation)],
        metadata={"max_images": str(most)},
    )
