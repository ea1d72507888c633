"""The embedder over gRPC: `vmmr.embedder.v1.EmbedderService`."""

from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from embedder_svc.network.model import Model
from embedder_svc.photos.preprocess import Box
from embedder_svc.serving.config import EmbedderConfig
from embedder_svc.serving.decoder import EncodedPhoto
from embedder_svc.serving.pipeline import Pipeline
from svckit.interceptor import deadline
from svckit.streams import Context

SERVICE = embedder_pb2.DESCRIPTOR.services_by_name["EmbedderService"].full_name


class EmbedderService(embedder_pb2_grpc.EmbedderServiceServicer):
    """The servicer. It can be added to a server at once, and must be `open`ed before the server takes calls."""

    def __init__(self, config: EmbedderConfig) -> None:
        self._config = config

    def open(self, pipeline: Pipeline) -> None:
        self._fingerprint = pipeline.model.info.fingerprint
        self._description = describe(self._config, pipeline.model)
        self._pipeline = pipeline

    def check_room(self, until: float | None) -> None:
        """Raise ServiceError, QUEUE_FULL, if there is no room for one more photo. Asked before a call's photos are read."""
        self._pipeline.check_room(until)

    async def Embed(  # noqa: N802 (the protocol's name)
        self, request: embedder_pb2.EmbedRequest, context: Context
    ) -> embedder_pb2.EmbedResponse:
        embedded = await self._pipeline.embed(_photos(request), deadline=deadline(context))
        times = {"decode_ms": embedded.decode_ms, "queue_ms": embedded.queue_ms, "infer_ms": embedded.infer_ms}
        return embedder_pb2.EmbedResponse(
            embeddings=wire.pack(self._fingerprint, embedded.embeddings),
            times=embedder_pb2.EmbedTimes(**times),
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


def _photos(request: embedder_pb2.EmbedRequest) -> list[EncodedPhoto]:
    return [(image.content, _box(image.crop) if image.HasField("crop") else None) for image in request.images]


def _box(box: embedder_pb2.Box) -> Box:
    return Box(box.left, box.top, box.right, box.bottom)
