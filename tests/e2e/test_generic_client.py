"""The pair as a client in another language sees it: nothing but reflection, descriptors and grpc.health.v1."""

import base64

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

KSERVE = "inference.GRPCInferenceService"
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


@pytest.fixture
def embed(channels):
    """The embeddings of photos, as JSON."""

    def embed(photos):
        images = [{"content": base64.b64encode(photo.read_bytes()).decode()} for photo in photos]
        return GenericClient(channels[EMBEDDER]).call(EMBEDDER, "Embed", {"images": images})["embeddings"]

    return embed


def test_kserve_gives_the_same_embeddings_as_numbers_with_json_alone(channels, drawn, embed):
    photo = min(drawn.photos.glob("*/*.jpg"))
    content = {"bytes_contents": [base64.b64encode(photo.read_bytes()).decode()]}
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "contents": content}
    asked = {"model_name": "resnet50-cars-int8", "inputs": [tensor]}
    answer = GenericClient(channels[EMBEDDER]).call(KSERVE, "ModelInfer", asked)
    numbers = np.array(answer["outputs"][0]["contents"]["fp32Contents"], "<f4")
    assert numbers.tobytes() == base64.b64decode(embed([photo])["data"])


def test_a_photo_is_identified_with_json_alone(channels, drawn, embed):
    query = {"queries": embed([min(drawn.photos.glob("*/*.jpg"))]), "options": {"k": 3}}
    (result,) = GenericClient(channels[SEARCH]).call(SEARCH, "Classify", query)["results"]
    assert set(result["answer"]) == {"label", "make", "model", "year"}
    assert len(result["neighbours"]) == 3


def test_photos_of_one_car_get_one_answer_with_json_alone(channels, drawn, embed):
    car = min(drawn.photos.glob("*/*.jpg")).parent
    query = {"queries": embed(sorted(car.glob("*.jpg"))[:3]), "options": {"k": 3}, "fuse": True}
    (result,) = GenericClient(channels[SEARCH]).call(SEARCH, "Classify", query)["results"]
    assert result["answer"]["label"] == car.name
    assert result["firstYear"] <= result["answer"]["year"] <= result["lastYear"]
    assert result["labelConfidence"] <= result["yearsConfidence"] <= result["modelConfidence"]
    assert 3 <= len(result["neighbours"]) <= 9


def test_a_confidence_is_asked_for_in_vain_where_too_few_photos_were_there_to_calibrate(channels, drawn, embed):
    client = GenericClient(channels[SEARCH])
    assert "calibration" not in client.call(SEARCH, "GetIndex", {})["index"]
    query = {"queries": embed([min(drawn.photos.glob("*/*.jpg"))]), "minConfidence": 0.5}
    with pytest.raises(grpc.RpcError, match="min_confidence: the index is not calibrated"):
        client.call(SEARCH, "Classify", query)
