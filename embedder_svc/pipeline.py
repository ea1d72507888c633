"""From encoded photos to embeddings, for callers on one event loop: admission, decoding, batches, the network.

Each face of the service (`service` is one) turns its requests into photos, and what comes of them into its replies.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedder_svc.admission import Admission
from embedder_svc.decoder import Decoder, EncodedPhoto, Pixels
from embedder_svc.model import Model
from embedder_svc.preprocess import PhotoError, PhotoReason
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
    """What decoded photos waited for the network."""
    infer_ms: float
    """What the network took for the batches these photos were in."""


class Pipeline:
    """One for a server, whatever faces it has: `max_queue` bounds the photos of all of them together."""

    def __init__(
        self,
        model: Model,
        decoder: Decoder,
        batcher: Batcher[Pixels, Embedding],
        *,
        max_queue: int,
        max_images: int,
    ) -> None:
        """`max_queue` photos at once, `max_images` of them from one call."""
        self.model = model
        self._decoder = decoder
        self._batcher = batcher
        self._admission = Admission(max_queue)
        self.max_images = max_images

    async def embed(self, photos: Sequence[EncodedPhoto], *, field: str = "images", deadline: float | None) -> Embedded:
        """The embeddings of 1 to `max_images` photos, all or none; `deadline` is a time of `time.monotonic`.

        `field` is where the photos are in the face's request, for violations: the fourth is `images[3]`.
        Raises ServiceError: INVALID_IMAGE_COUNT; INVALID_IMAGE, with a violation for each bad photo; and what Admission
        and Batcher raise.
        """
        arrived = time.monotonic()
        self.check_count(len(photos), field)
        with self._admission.admit(len(photos), deadline):
            results = await self._decoder.decode(photos)
            decode_ms = 1e3 * (time.monotonic() - arrived)
            batched = await self._batcher.submit(_all_good(results, field), deadline=deadline)
        return Embedded(np.stack(batched.outputs), decode_ms, batched.queue_ms, batched.run_ms)

    def check_room(self, deadline: float | None) -> None:
        """Raises ServiceError, QUEUE_FULL, if not even one more photo can be let in."""
        self._admission.check(1, deadline)

    def check_count(self, count: int, field: str) -> None:
        """Raises ServiceError, INVALID_IMAGE_COUNT, as `embed` does: for a face that would rather know before."""
        most = self.max_images
        if not 1 <= count <= most:
            raise ServiceError(
                Reason.INVALID_IMAGE_COUNT,
                f"send 1 to {most} images, not {count}",
                violations=[Violation(field, Reason.INVALID_IMAGE_COUNT, f"must be 1 to {most}, got {count}")],
                metadata={"max_images": str(most)},
            )


def _all_good(results: Sequence[Pixels | PhotoError], field: str) -> list[Pixels]:
    """The pixels, if there is no bad photo among them; else one error that tells of every bad one."""
    bad = [_violation(f"{field}[{i}]", result) for i, result in enumerate(results) if isinstance(result, PhotoError)]
    if bad:
        raise ServiceError(
            Reason.INVALID_IMAGE,
            f"{len(bad)} of {len(results)} images can't be used; {bad[0].field}: {bad[0].description}",
            violations=bad,
        )
    return [result for result in results if not isinstance(result, PhotoError)]


def _violation(photo: str, error: PhotoError) -> Violation:
    part = "crop" if error.reason == PhotoReason.INVALID_CROP else "content"
    return Violation(f"{photo}.{part}", error.reason, error.description)
