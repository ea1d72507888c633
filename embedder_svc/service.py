"""The gRPC face of the embedder."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from embedder_svc.admission import Admission
from embedder_svc.config import EmbedderConfig
from embedder_svc.decoder import Decoder, EncodedPhoto, Pixels
from embedder_svc.model import Model
from embedder_svc.preprocess import Box, PhotoError, PhotoReason
from svckit.batcher import Batcher
from svckit.errors import Reason, ServiceError, Violation
from svckit.interceptor import deadline
from svckit.streams import Context

SERVICE = embedder_pb2.DESCRIPTOR.services_by_name["EmbedderService"].full_name

Embedding = NDArray[np.float32]


class EmbedderService(embedder_pb2_grpc.EmbedderServiceServicer):
    """Must be `open`ed before the first call; it can be added to a server, which refuses calls meanwhile, before that."""

    def __init__(self, config: EmbedderConfig) -> None:
        self._config = config
        self._admission = Admission(config.max_queue)

    def open(self, model: Model, decoder: Decoder, batcher: Batcher[Pixels, Embedding]) -> None:
        self._fingerprint = model.info.fingerprint
        self._description = describe(self._config, model)
        self._decoder = decoder
        self._batcher = batcher

    async def Embed(  # noqa: N802 (the protocol's name)
        self, request: embedder_pb2.EmbedRequest, context: Context
    ) -> embedder_pb2.EmbedResponse:
        arrived = time.monotonic()
        _check_count(len(request.images), self._config.max_images)
        with self._admission.admit(len(request.images)):
            results = await self._decoder.decode(_photos(request))
            decode_ms = 1e3 * (time.monotonic() - arrived)
            batched = await self._batcher.submit(_all_good(results), deadline=deadline(context))
        return embedder_pb2.EmbedResponse(
            embeddings=wire.pack(self._fingerprint, np.stack(batched.outputs)),
            times=embedder_pb2.EmbedTimes(decode_ms=decode_ms, queue_ms=batched.queue_ms, infer_ms=batched.run_ms),
        )

    async def GetModel(  # noqa: N802 (the protocol's name)
        self, request: embedder_pb2.GetModelRequest, context: Context  # noqa: ARG002 (gRPC passes both)
    ) -> embedder_pb2.GetModelResponse:  # fmt: skip
        return self._description


def describe(config: EmbedderConfig, model: Model) -> embedder_pb2.GetModelResponse:
    info = model.info
    return embedder_pb2.GetModelResponse(
        model=embedder_pb2.Model(
            fingerprint=info.fingerprint,
            name=info.name,
            dimension=info.dimension,
            precision=info.precision,
            input_size=info.input_size,
            resize=info.resize,
            normalized=info.normalized,
            provider=model.provider,
        ),
        limits=embedder_pb2.Limits(
            max_images=config.max_images,
            max_image_bytes=config.max_image_bytes,
            max_image_pixels=config.max_image_pixels,
            max_aspect_ratio=config.max_aspect_ratio,
            max_request_bytes=config.max_request_bytes,
        ),
    )


def _check_count(count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise ServiceError(
            Reason.INVALID_IMAGE_COUNT,
            f"send 1 to {most} images, not {count}",
            violations=[Violation("images", Reason.INVALID_IMAGE_COUNT, f"must be 1 to {most}, got {count}")],
            metadata={"max_images": str(most)},
        )


def _photos(request: embedder_pb2.EmbedRequest) -> list[EncodedPhoto]:
    return [(image.content, _box(image.crop) if image.HasField("crop") else None) for image in request.images]


def _box(box: embedder_pb2.Box) -> Box:
    return Box(box.left, box.top, box.right, box.bottom)


def _all_good(results: Sequence[Pixels | PhotoError]) -> list[Pixels]:
    """The pixels, if there is no bad photo among them; else one error that tells of every bad one."""
    bad = [_violation(i, result) for i, result in enumerate(results) if isinstance(result, PhotoError)]
    if bad:
        raise ServiceError(
            Reason.INVALID_IMAGE,
            f"{len(bad)} of {len(results)} images can't be used; {bad[0].field}: {bad[0].description}",
            violations=bad,
        )
    return [result for result in results if not isinstance(result, PhotoError)]


def _violation(index: int, error: PhotoError) -> Violation:
    part = "crop" if error.reason == PhotoReason.INVALID_CROP else "content"
    return Violation(f"images[{index}].{part}", error.reason, error.description)
