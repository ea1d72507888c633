"""The pair as a client in another language sees it: nothing but reflection, descriptors and grpc.health.v1."""

import base64

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

EMBEDDER, SEARCH = "vmmr.embedder.v1.EmbedderService", "vmmr.search.v1.SearchService"


class GenericClient:
    """Calls methods by name with JSON, as grpcurl does."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.reflection = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self.reflection)

    def call(self, service: str, method: str, request: dict) -> dict:
        described = self._pool.FindServiceByName(service).methods_by_name[method]
        message = json_format.ParseDict(request, GetMessageClass(described.input_type)())
        reply_class = GetMessageClass(described.output_type)
        send = self._channel.unary_unary(
            f"/{service}/{method}", lambda m: m.SerializeToString(), reply_class.FromString
        )
        return json_format.MessageToDict(send(message, timeout=60))


@pytest.fixture(params=[EMBEDDER, SEARCH])
def service(request) -> str:
    return request.param


@pytest.fixture
def channels(addresses):
    with grpc.insecure_channel(addresses[0]) as embedder, grpc.insecure_channel(addresses[1]) as search:
        yield {EMBEDDER: embedder, SEARCH: search}


def test_reflection_lists_the_service(channels, service):
    assert service in GenericClient(channels[service]).reflection.get_services()


def test_health_is_told_for_the_server_and_for_the_service(channels, service):
    check = health_pb2_grpc.HealthStub(channels[service]).Check
    for name in ("", service):
        assert check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as unknown:
        check(health_pb2.HealthCheckRequest(service="no.such.Service"))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_photo_is_identified_with_json_alone(channels, drawn):
    photo = min(drawn.photos.glob("*/*.jpg"))
    images = [{"content": base64.b64encode(photo.read_bytes()).decode()}]
    embedded = GenericClient(channels[EMBEDDER]).call(EMBEDDER, "Embed", {"images": images})
    query = {"queries": embedded["embeddings"], "options": {"k": 3}}
    (result,) = GenericClient(channels[SEARCH]).call(SEARCH, "Classify", query)["results"]
    assert set(result["answer"]) == {"label", "make", "model", "year"}
    assert len(result["neighbours"]) == 3
