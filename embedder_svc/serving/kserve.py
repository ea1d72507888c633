"""The embedder over the Open Inference Protocol (KServe v2), for tools and clients that exist already."""

import importlib.metadata
from collections.abc import Callable

from vmmr.inference.v2 import inference_pb2, inference_pb2_grpc

from embedder_svc.network.bundle import BundleInfo
from embedder_svc.serving import kserve_tensors as tensors
from embedder_svc.serving.pipeline import Pipeline
from svckit.errors import Reason, ServiceError
from svckit.interceptor import deadline
from svckit.streams import Context

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
ALWAYS = ("ServerLive", "ServerReady", "ModelReady")
"""Methods that tell whether the server is ready, and so are answered in every state; see `Server.add`."""


class KServeService(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The servicer. `open` it before `ready()`, which says whether the server takes calls, is first true."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        version = importlib.metadata.version("vmmr-services")
        self._description = inference_pb2.ServerMetadataResponse(
            name="vmmr-embedder", version=version, extensions=["model_configuration"]
        )

    def open(self, pipeline: Pipeline) -> None:
        self._info = pipeline.model.info
        self._pipeline = pipeline

    async def ServerLive(  # noqa: N802 (the protocol's name)
        self, request: inference_pb2.ServerLiveRequest, context: Context  # noqa: ARG002 (gRPC passes both)
    ) -> inference_pb2.ServerLiveResponse:  # fmt: skip
        return inference_pb2.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802 (the protocol's name)
        self, request: inference_pb2.ServerReadyRequest, context: Context  # noqa: ARG002 (gRPC passes both)
    ) -> inference_pb2.ServerReadyResponse:  # fmt: skip
        return inference_pb2.ServerReadyResponse(ready=self._ready())

    async def ModelReady(  # noqa: N802 (the protocol's name)
        self, request: inference_pb2.ModelReadyRequest, context: Context  # noqa: ARG002 (gRPC passes both)
    ) -> inference_pb2.ModelReadyResponse:  # fmt: skip
        ready = self._ready()
        if ready:  # before, the model is not known yet
            _check_model(self._info, request.name, request.version)
        return inference_pb2.ModelReadyResponse(ready=ready)

    async def ServerMetadata(  # noqa: N802 (the protocol's name)
        self, request: inference_pb2.ServerMetadataRequest, context: Context  # noqa: ARG002 (gRPC passes both)
    ) -> inference_pb2.ServerMetadataResponse:  # fmt: skip
        return self._description

    async def ModelMetadata(  # noqa: N802 (the protocol's name)
        self, request: inference_pb2.ModelMetadataRequest, context: Context  # noqa: ARG002 (gRPC passes both)
    ) -> inference_pb2.ModelMetadataResponse:  # fmt: skip
        _check_model(self._info, request.name, request.version)
        return tensors.metadata(self._info)

    async def ModelConfig(  # noqa: N802 (the protocol's name)
        self, request: inference_pb2.ModelConfigRequest, context: Context  # noqa: ARG002 (gRPC passes both)
    ) -> inference_pb2.ModelConfigResponse:  # fmt: skip
        _check_model(self._info, request.name, request.version)
        return tensors.configuration(self._info, self._pipeline.max_images)

    async def ModelInfer(  # noqa: N802 (the protocol's name)
        self, request: inference_pb2.ModelInferRequest, context: Context
    ) -> inference_pb2.ModelInferResponse:
        _check_model(self._info, request.model_name, request.model_version)
        count = tensors.count(request, self._info)
        self._pipeline.check_count(count, "inputs[0].shape")
        photos = [(content, self._pipeline.default) for content in tensors.elements(request, count)]
        embedded = await self._pipeline.embed(photos, deadline=deadline(context))
        return tensors.response(request, self._info, embedded)


def _check_model(info: BundleInfo, name: str, version: str) -> None:
    """Raise ServiceError, UNKNOWN_MODEL, unless that is the model that is served. An empty version is any version."""
    known = {"model": info.name, "version": info.fingerprint}
    if name != info.name:
        raise ServiceError(
            Reason.UNKNOWN_MODEL, f"there is no model {name!r}, only {info.name!r} is served", metadata=known
        )
    if version not in ("", info.fingerprint):
        raise ServiceError(
            Reason.UNKNOWN_MODEL,
            f"model {name!r} has no version {version!r}, only {info.fingerprint!r}; it may be left out",
            metadata=known,
        )
