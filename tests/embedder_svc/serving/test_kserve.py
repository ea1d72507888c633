"""The Open Inference Protocol, in this process, on real gRPC."""

import asyncio
import struct
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from vmmr.inference.v2 import inference_pb2, inference_pb2_grpc

from embedder_svc.__main__ import _pipeline
from embedder_svc.network.model import Model
from embedder_svc.serving import kserve
from embedder_svc.serving.config import EmbedderConfig
from embedder_svc.serving.decoder import Decoder
from embedder_svc.serving.kserve import KServeService
from embedder_svc.serving.pipeline import Pipeline
from embedder_svc.serving.service import SERVICE, EmbedderService
from svckit.server import Server

TIMEOUT_S = 20
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
Tensor = inference_pb2.ModelInferRequest.InferInputTensor
Wanted = inference_pb2.ModelInferRequest.InferRequestedOutputTensor


@dataclass
class Served:
    """Both faces of one embedder, which is warm once `open` was awaited."""

    server: Server
    stub: object
    embedder: object
    fingerprint: str

    async def infer(self, *photos, **fields):
        return await self.stub.ModelInfer(request(*photos, **fields), timeout=TIMEOUT_S)

    async def embed(self, *photos):
        images = [embedder_pb2.Image(content=photo) for photo in photos]
        answer = await self.embedder.Embed(embedder_pb2.EmbedRequest(images=images), timeout=TIMEOUT_S)
        return wire.unpack(answer.embeddings)


def raw(*photos):
    return b"".join(struct.pack("<I", len(photo)) + photo for photo in photos)


def request(*photos, shape=None, inputs=None, contents=False, **fields):
    tensor = Tensor(name="images", datatype="BYTES", shape=[len(photos)] if shape is None else shape)
    if contents:
        tensor.contents.bytes_contents.extend(photos)
    elif inputs is None:
        fields.setdefault("raw_input_contents", [raw(*photos)])
    fields.setdefault("model_name", "tiny")
    return inference_pb2.ModelInferRequest(inputs=[tensor] if inputs is None else inputs, **fields)


async def refusal(call):
    """The status, ErrorInfo's reason, and (field, reason) of each violation."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(caught.value).details:
        _ = detail.Unpack(info), detail.Unpack(bad)
    violations = [(violation.field, violation.reason) for violation in bad.field_violations]
    return caught.value.code(), info.reason, violations


async def message(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.details()


@pytest.fixture
async def cold(tiny_bundle):
    config = EmbedderConfig(port=0, max_images=4, max_queue=6, drain_pause_s=0.0, max_concurrent_calls=1)
    model = Model.open(tiny_bundle, device="cpu", threads=1)
    decoder = Decoder(model.info.resizing, config.limits, threads=1)
    server = Server(config, name="embedder")
    batcher = server.metrics.batcher("embed", lambda pixels: list(model.embed(pixels)), max_batch=4, max_queue=6)
    pipeline = Pipeline(model, decoder, batcher, max_images=config.max_images, max_queue=config.max_queue)
    servicer, second = EmbedderService(config), KServeService(lambda: server.ready)
    servicer.open(pipeline)
    second.open(pipeline)
    server.add(embedder_pb2_grpc.add_EmbedderServiceServicer_to_server, servicer, SERVICE)
    add = inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
    server.add(add, second, kserve.SERVICE, always=kserve.ALWAYS)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield Served(server, stub, embedder_pb2_grpc.EmbedderServiceStub(channel), model.info.fingerprint)
        await server.stop()
    await batcher.close()
    decoder.close()


@pytest.fixture
async def served(cold):
    await cold.server.open()
    return cold


@pytest.fixture
def photos(encode):
    rng = np.random.default_rng(0)
    return [encode(rng.integers(0, 256, (40, 60, 3), np.uint8), "PNG") for _ in range(4)]


class TestReadiness:
    async def answers(self, served):
        """Live, ready, and ready with the model."""
        stub = served.stub
        live = await stub.ServerLive(inference_pb2.ServerLiveRequest(), timeout=TIMEOUT_S)
        ready = await stub.ServerReady(inference_pb2.ServerReadyRequest(), timeout=TIMEOUT_S)
        model = await stub.ModelReady(inference_pb2.ModelReadyRequest(name="tiny"), timeout=TIMEOUT_S)
        return live.live, ready.ready, model.ready

    async def test_is_told_without_an_error_before_the_server_is_warm_and_after(self, cold, photos):
        assert await self.answers(cold) == (True, False, False)
        assert (await refusal(cold.infer(photos[0])))[:2] == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
        await cold.server.open()
        assert await self.answers(cold) == (True, True, True)
        assert (await cold.infer(photos[0])).outputs

    async def test_is_told_while_the_server_has_all_the_calls_it_takes(self, served):
        with served.server._gate.call():
            metadata = served.stub.ServerMetadata(inference_pb2.ServerMetadataRequest(), timeout=TIMEOUT_S)
            assert (await refusal(metadata))[1] == "QUEUE_FULL"
            assert await self.answers(served) == (True, True, True)

    async def test_ends_when_the_server_drains(self, served):
        with served.server._gate.call():
            stopping = asyncio.ensure_future(served.server.stop())
            await served.server._gate.draining.wait()
            assert await self.answers(served) == (True, False, False)
        await stopping

    async def test_of_a_model_that_is_not_served_is_an_error(self, served):
        for unknown in ({"name": "other"}, {"name": "tiny", "version": "1"}):
            call = served.stub.ModelReady(inference_pb2.ModelReadyRequest(**unknown), timeout=TIMEOUT_S)
            assert (await refusal(call))[:2] == (NOT_FOUND, "UNKNOWN_MODEL")


class TestMetadata:
    async def test_of_the_server(self, served):
        answer = await served.stub.ServerMetadata(inference_pb2.ServerMetadataRequest(), timeout=TIMEOUT_S)
        assert (answer.name, list(answer.extensions)) == ("vmmr-embedder", ["model_configuration"])
        assert answer.version

    async def test_of_the_model_names_its_tensors_and_its_fingerprint(self, served):
        for version in ("", served.fingerprint):
            asked = inference_pb2.ModelMetadataRequest(name="tiny", version=version)
            answer = await served.stub.ModelMetadata(asked, timeout=TIMEOUT_S)
            assert list(answer.versions) == [served.fingerprint]
            tensors = [(t.name, t.datatype, list(t.shape)) for t in (*answer.inputs, *answer.outputs)]
            assert tensors == [("images", "BYTES", [-1, 1]), ("embeddings", "FP32", [-1, 16])]

    async def test_as_triton_tells_it_has_the_most_photos_in_a_call(self, served):
        answer = await served.stub.ModelConfig(inference_pb2.ModelConfigRequest(name="tiny"), timeout=TIMEOUT_S)
        assert answer.config.max_batch_size == 4
        tensors = [(t.name, t.data_type, list(t.dims)) for t in (*answer.config.input, *answer.config.output)]
        assert tensors == [("images", inference_pb2.TYPE_STRING, [1]), ("embeddings", inference_pb2.TYPE_FP32, [16])]

    async def test_of_another_model_is_refused(self, served):
        for method, asked in (
            (served.stub.ModelMetadata, inference_pb2.ModelMetadataRequest(name="x")),
            (served.stub.ModelConfig, inference_pb2.ModelConfigRequest(name="x")),
        ):
            assert await refusal(method(asked, timeout=TIMEOUT_S)) == (NOT_FOUND, "UNKNOWN_MODEL", [])


class TestInfer:
    @pytest.mark.parametrize("columns", [[], [1]])
    async def test_raw_photos_give_the_embedders_own_embeddings_raw(self, served, photos, columns):
        answer = await served.infer(*photos, shape=[4, *columns])
        (output,) = answer.outputs
        assert (output.name, output.datatype, list(output.shape)) == ("embeddings", "FP32", [4, 16])
        assert not output.HasField("contents")
        rows = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(4, 16)
        assert np.array_equal(rows, await served.embed(*photos))

    async def test_typed_contents_give_typed_contents(self, served, photos):
        answer = await served.infer(*photos, contents=True)
        assert not answer.raw_output_contents
        rows = np.array(answer.outputs[0].contents.fp32_contents, np.float32).reshape(4, 16)
        assert np.array_equal(rows, await served.embed(*photos))

    async def test_the_answer_names_its_request_its_model_and_where_the_time_went(self, served, photos):
        answer = await served.infer(photos[0], id="of mine", model_version=served.fingerprint)
        assert (answer.id, answer.model_name, answer.model_version) == ("of mine", "tiny", served.fingerprint)
        assert answer.parameters["decode_ms"].double_param > 0
        assert answer.parameters.keys() == {"decode_ms", "detect_ms", "queue_ms", "infer_ms"}

    async def test_the_output_may_be_asked_for_by_name_and_strange_parameters_are_not_heeded(self, served, photos):
        parameter = {"priority": inference_pb2.InferParameter(uint64_param=1)}
        asked = [Wanted(name="embeddings", parameters=parameter)]
        answer = await served.infer(photos[0], outputs=asked, parameters=parameter)
        assert [output.name for output in answer.outputs] == ["embeddings"]


class TestBoxes:
    """A model that finds cars has a second output: the part of each photo that was embedded."""

    @pytest.fixture
    async def served(self, car_bundle):
        config = EmbedderConfig(port=0, max_images=4, max_queue=6, drain_pause_s=0.0)
        model = Model.open(car_bundle, device="cpu", threads=1)
        server = Server(config, name="embedder")
        native, second = EmbedderService(config), KServeService(lambda: server.ready)
        server.add(embedder_pb2_grpc.add_EmbedderServiceServicer_to_server, native, SERVICE)
        server.add(inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server, second, kserve.SERVICE)
        await server.start()
        async with _pipeline(model, config, server.metrics) as pipeline:
            native.open(pipeline)
            second.open(pipeline)
            await server.open()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
                yield Served(server, stub, embedder_pb2_grpc.EmbedderServiceStub(channel), model.info.fingerprint)
            await server.stop()

    @pytest.fixture
    def photos(self, street, encode):
        return [encode(street(cars), "PNG") for cars in ({(1, 2): 255, (3, 0): 200}, {})]

    async def test_the_default_is_the_main_car_and_the_boxes_say_where_it_was(self, served, photos):
        answer = await served.infer(*photos)
        assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [
            ("embeddings", "FP32", [2, 16]),
            ("boxes", "FP32", [2, 5]),
        ]
        rows, boxes = (np.frombuffer(content, "<f4").reshape(2, -1) for content in answer.raw_output_contents)
        assert np.array_equal(rows, await served.embed(*photos))
        assert boxes[0, :4].tolist() == [0.25, 0.5, 0.5, 0.75]
        assert boxes[0, 4] > 0.35
        assert boxes[1].tolist() == [0, 0, 1, 1, 0]

    async def test_typed_contents_give_typed_boxes(self, served, photos):
        answer = await served.infer(*photos, contents=True)
        assert list(answer.outputs[1].contents.fp32_contents)[5:] == [0, 0, 1, 1, 0]

    @pytest.mark.parametrize("names", [["boxes"], ["boxes", "embeddings"], ["embeddings"]])
    async def test_outputs_that_are_named_are_given_alone_and_in_that_order(self, served, photos, names):
        answer = await served.infer(photos[0], outputs=[Wanted(name=name) for name in names])
        assert [output.name for output in answer.outputs] == names
        widths = {"boxes": 5, "embeddings": 16}
        assert [len(content) // 4 for content in answer.raw_output_contents] == [widths[name] for name in names]

    async def test_metadata_and_configuration_tell_of_them(self, served):
        named = {"name": "tiny"}
        metadata = await served.stub.ModelMetadata(inference_pb2.ModelMetadataRequest(**named), timeout=TIMEOUT_S)
        assert [(each.name, list(each.shape)) for each in metadata.outputs] == [
            ("embeddings", [-1, 16]),
            ("boxes", [-1, 5]),
        ]
        config = (await served.stub.ModelConfig(inference_pb2.ModelConfigRequest(**named), timeout=TIMEOUT_S)).config
        assert [(each.name, list(each.dims)) for each in config.output] == [("embeddings", [16]), ("boxes", [5])]

    async def test_a_model_without_a_detector_has_none(self, cold, photos):
        await cold.server.open()
        violation = [("outputs[0].name", "TENSOR_NAME")]
        refused = await refusal(cold.infer(photos[0], outputs=[Wanted(name="boxes")]))
        assert refused == (INVALID, "INVALID_TENSOR", violation)


def tensor(**fields):
    return Tensor(**({"name": "images", "datatype": "BYTES", "shape": [1]} | fields))


REGION = {"shared_memory_region": inference_pb2.InferParameter(string_param="x")}


class TestRefuses:
    @pytest.mark.parametrize("fields", [{"model_name": "other"}, {"model_name": ""}, {"model_version": "1"}])
    async def test_a_model_that_is_not_served(self, served, photos, fields):
        assert await refusal(served.infer(photos[0], **fields)) == (NOT_FOUND, "UNKNOWN_MODEL", [])
        assert served.fingerprint in await message(served.infer(photos[0], model_version="1"))

    @pytest.mark.parametrize(
        ("inputs", "violations"),
        [
            ([], [("inputs", "TENSOR_COUNT")]),
            ([tensor(), tensor(name="b")], [("inputs", "TENSOR_COUNT"), ("inputs[1].name", "TENSOR_NAME")]),
            (
                [tensor(datatype="UINT8", shape=[1, 3])],
                [("inputs[0].datatype", "TENSOR_DATATYPE"), ("inputs[0].shape", "TENSOR_SHAPE")],
            ),
            ([tensor(shape=[])], [("inputs[0].shape", "TENSOR_SHAPE")]),
            ([tensor(shape=[-1])], [("inputs[0].shape", "TENSOR_SHAPE")]),
            ([tensor(shape=[1, 1, 1])], [("inputs[0].shape", "TENSOR_SHAPE")]),
            ([tensor(parameters=REGION)], [("inputs[0].parameters['shared_memory_region']", "TENSOR_PARAMETER")]),
        ],
    )
    async def test_inputs_that_are_not_as_the_metadata_says_all_at_once(self, served, inputs, violations):
        assert await refusal(served.infer(inputs=inputs)) == (INVALID, "INVALID_TENSOR", violations)

    async def test_outputs_that_there_are_not(self, served, photos):
        outputs = [Wanted(name="embeddings", parameters=REGION), Wanted(name="logits")]
        assert await refusal(served.infer(photos[0], outputs=outputs)) == (
            INVALID,
            "INVALID_TENSOR",
            [("outputs[0].parameters['shared_memory_region']", "TENSOR_PARAMETER"), ("outputs[1].name", "TENSOR_NAME")],
        )

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "raw_input_contents[0] has 0 elements, the shape says 2 elements"),
            (raw(b"abc"), "raw_input_contents[0] has 1 elements, the shape says 2 elements"),
            (
                raw(b"", b"", b"abc"),
                "raw_input_contents[0] has 2 elements, and 7 bytes more, the shape says 2 elements",
            ),
            (raw(b"abc") + b"\1\0\0", "raw_input_contents[0] ends within the length of element 1"),
            (raw(b"a", b"abc")[:-1], "raw_input_contents[0] ends within element 1: it has 2 of 3 bytes"),
            (b"\xff\xff\xff\xff", "raw_input_contents[0] ends within element 0: it has 0 of 4294967295 bytes"),
        ],
    )
    async def test_raw_contents_that_are_not_what_the_shape_says(self, served, content, said):
        call = served.infer(shape=[2], raw_input_contents=[content])
        assert await message(call) == said
        call = served.infer(shape=[2], raw_input_contents=[content])
        assert await refusal(call) == (INVALID, "INVALID_TENSOR", [("raw_input_contents[0]", "TENSOR_CONTENT")])

    async def test_contents_that_are_in_two_places_or_in_none(self, served, photos):
        both = served.infer(photos[0], contents=True, raw_input_contents=[raw(photos[0])])
        assert await refusal(both) == (INVALID, "INVALID_TENSOR", [("inputs[0].contents", "TENSOR_CONTENT")])
        twice = served.infer(photos[0], raw_input_contents=[b"", b""])
        assert await refusal(twice) == (INVALID, "INVALID_TENSOR", [("raw_input_contents", "TENSOR_CONTENT")])
        none = served.infer(inputs=[tensor()])
        where = [("inputs[0].contents.bytes_contents", "TENSOR_CONTENT")]
        assert await refusal(none) == (INVALID, "INVALID_TENSOR", where)

    async def test_no_photos_and_too_many_before_they_are_taken_apart(self, served):
        for count in (0, 5, 2**62):
            call = served.infer(shape=[count], raw_input_contents=[b"\0" * 1000])
            where = [("inputs[0].shape", "INVALID_IMAGE_COUNT")]
            assert await refusal(call) == (INVALID, "INVALID_IMAGE_COUNT", where)

    async def test_bad_photos_by_their_index(self, served, photos):
        call = served.infer(photos[0], b"text", photos[1], b"")
        assert await refusal(call) == (
            INVALID,
            "INVALID_IMAGE",
            [("images[1].content", "IMAGE_FORMAT"), ("images[3].content", "IMAGE_EMPTY")],
        )
