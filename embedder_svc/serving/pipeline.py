"""From encoded photos to embeddings, for callers on one event loop: admission, decoding, batches, the network.

The servicers of both protocols (`service` and `kserve`) turn their requests into photos, and embeddings into their replies.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedder_svc.network.model import Model
from embedder_svc.photos.preprocess import PhotoError, PhotoReason
from embedder_svc.serving.admission import Admission
from embedder_svc.serving.cache import Cache, key_of
from embedder_svc.serving.decoder import Decoder, EncodedPhoto, Pixels
from svckit.batcher import Batcher
from svckit.errors import Reason, ServiceError, Violation

Embedding = NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """The embeddings of one call's photos, and where the time went."""

    embeddings: NDArray[np.float32]
    """(N, dimension), in the order of the photos."""
    decode_ms: float
    """From the call's arrival until its last photo was decoded."""
    queue_ms: float
    """Time that decoded photos waited for the network."""
    infer_ms: float
    """Time that the network ran the batches that these photos were in."""


class Pipeline:
    """Embeds photos. A server has one, shared by its servicers: the batcher's `max_queue` bounds the photos of all callers together."""

    def __init__(
        self,
        model: Model,
        decoder: Decoder,
        batcher: Batcher[Pixels, Embedding],
        *,
        max_images: int,
        cache: Cache | None = None,
    ) -> None:
        """Take at most `max_images` photos from one call, and from all calls at once as many as the batcher's queue holds."""
        self.model = model
        self._decoder = decoder
        self._batcher = batcher
        self._admission = Admission(batcher.max_queue)
        self.max_images = max_images
        self._cache = cache

    async def embed(self, photos: Sequence[EncodedPhoto], *, field: str = "images", deadline: float | None) -> Embedded:
        """Return the embeddings of 1 to `max_images` photos, all or none; `deadline` is a time of `time.monotonic`.

        `field` is the path of the photos in the request, for violations: the fourth photo is `images[3]`.
        Raise ServiceError: INVALID_IMAGE_COUNT; INVALID_IMAGE, with a violation for each bad photo; and what Admission
        and Batcher raise.
        """
        arrived = time.monotonic()
        self.check_count(len(photos), field)
        if self._cache is None:
            return await self._embed(dict(enumerate(photos)), arrived, field, deadline)
        return await self._embed_with_cache(photos, self._cache, arrived, field, deadline)

    async def _embed_with_cache(
        self, photos: Sequence[EncodedPhoto], cache: Cache, arrived: float, field: str, deadline: float | None
    ) -> Embedded:
        """Embed the photos that the cache lacks. Their keys are made in the decoding threads: a photo may have millions of bytes."""
        keys = await self._decoder.map(key_of, photos)
        rows = {number: row for number, key in enumerate(keys) if (row := cache.get(key)) is not None}
        new = {number: photo for number, photo in enumerate(photos) if number not in rows}
        embedded = await self._embed(new, arrived, field, deadline) if new else None
        for number, row in zip(new, embedded.embeddings if embedded else (), strict=True):
            rows[number] = row.copy()  # a view would keep all embeddings of the call alive
            cache.put(keys[number], rows[number])
        embeddings = np.stack([rows[number] for number in range(len(photos))])
        return (
            replace(embedded, embeddings=embeddings) if embedded else Embedded(embeddings, _ms_since(arrived), 0.0, 0.0)
        )

    async def _embed(
        self, photos: Mapping[int, EncodedPhoto], arrived: float, field: str, deadline: float | None
    ) -> Embedded:
        """Embed photos, which are given by their number in the call."""
        with self._admission.admit(len(photos), deadline):
            results = await self._decoder.decode(list(photos.values()))
            decode_ms = _ms_since(arrived)
            pixels = _all_good(dict(zip(photos, results, strict=True)), field)
            batched = await self._batcher.submit(pixels, deadline=deadline)
        return Embedded(np.stack(batched.outputs), decode_ms, batched.queue_ms, batched.run_ms)

    def check_room(self, deadline: float | None) -> None:
        """Raise ServiceError, QUEUE_FULL, if not even one more photo can be admitted."""
        self._admission.check(1, deadline)

    def check_count(self, count: int, field: str) -> None:
        """Raise ServiceError, INVALID_IMAGE_COUNT, unless a call may have so many photos; `embed` does so too, but later."""
        most = self.max_images
        if not 1 <= count <= most:
            raise ServiceError(
                Reason.INVALID_IMAGE_COUNT,
                f"send 1 to {most} images, not {count}",
                violations=[Violation(field, Reason.INVALID_IMAGE_COUNT, f"must be 1 to {most}, got {count}")],
                metadata={"max_images": str(most)},
            )


def _ms_since(arrived: float) -> float:
    return 1e3 * (time.monotonic() - arrived)


def _all_good(results: Mapping[int, Pixels | PhotoError], field: str) -> list[Pixels]:
    """Return the pixels of all photos. Raise one ServiceError, INVALID_IMAGE, that names every bad photo, if there are any."""
    bad = [_violation(f"{field}[{i}]", result) for i, result in results.items() if isinstance(result, PhotoError)]
    if bad:
        raise ServiceError(
            Reason.INVALID_IMAGE,
            f"{len(bad)} of {len(results)} images can't be used; {bad[0].field}: {bad[0].description}",
            violations=bad,
        )
    return [result for result in results.values() if not isinstance(result, PhotoError)]


def _violation(photo: str, error: PhotoError) -> Violation:
    part = "crop" if error.reason == PhotoReason.INVALID_CROP else "content"
    return Violation(f"{photo}.{part}", error.reason, error.description)
