"""The embedder over gRPC: `vmmr.embedder.v1.EmbedderService`."""

from dataclasses import asdict

from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from vmmr.embedding.v1 import embedding_pb2

from embedder_svc.network.cars import Car, Cut, DetectorInfo
from embedder_svc.network.model import Model
from embedder_svc.serving import requests
from embedder_svc.serving.config import EmbedderConfig
from embedder_svc.serving.pipeline import Pipeline
from svckit.interceptor import deadline
from svckit.streams import Context

SERVICE = embedder_pb2.DESCRIPTOR.services_by_name["EmbedderService"].full_name


class EmbedderService(embedder_pb2_grpc.EmbedderServiceServicer):
    """The servicer. It can be added to a server at once, and must be `open`ed before the server takes calls."""

    def __init__(self, config: EmbedderConfig) -> None:
        self._config = config
        self.before = {"Embed": self.check_room, "Detect": self.check_room}
        """What to ask before a call's message is read; see `Server.add`."""

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
        self._pipeline.check_count(len(request.images), "images")
        photos = requests.photos(request.images, self._pipeline.default)
        embedded = await self._pipeline.embed(photos, deadline=deadline(context))
        parts = zip(embedded.images, embedded.cuts, strict=True)
        return embedder_pb2.EmbedResponse(
            embeddings=wire.pack(self._fingerprint, embedded.embeddings),
            times=embedder_pb2.EmbedTimes(**asdict(embedded.times)),
            parts=[embedder_pb2.EmbeddedPart(image=image, cut=_cut(cut)) for image, cut in parts],
        )

    async def Detect(  # noqa: N802 (the protocol's name)
        self, request: embedder_pb2.DetectRequest, context: Context
    ) -> embedder_pb2.DetectResponse:
        self._pipeline.check_count(len(request.images), "images")
        detected = await self._pipeline.detect(requests.contents(request.images), deadline=deadline(context))
        return embedder_pb2.DetectResponse(
            detections=[embedder_pb2.Detections(cars=map(_detection, found)) for found in detected.cars],
            times=embedder_pb2.EmbedTimes(**asdict(detected.times)),
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
            detector=_detector(info.detector),
        ),
        limits=embedder_pb2.Limits(
            max_images=config.max_images,
            max_image_bytes=config.max_image_bytes,
            max_image_pixels=config.max_image_pixels,
            max_aspect_ratio=config.max_aspect_ratio,
            max_request_bytes=config.max_request_bytes,
            max_cars=info.detector.max_cars if info.detector else 0,
        ),
    )


def _detector(info: DetectorInfo | None) -> embedder_pb2.Detector | None:
    return embedder_pb2.Detector(name=info.name, threshold=info.threshold, margin=info.margin) if info else None


def _cut(cut: Cut) -> embedding_pb2.Cut:
    return embedding_pb2.Cut(**asdict(cut.box), car_score=cut.car_score, no_car_found=cut.no_car_found)


def _detection(car: Car) -> embedder_pb2.Detection:
    return embedder_pb2.Detection(box=embedder_pb2.Box(**asdict(car.box)), score=car.score)
