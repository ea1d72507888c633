"""The service in this process, on real gRPC; its one decoding thread can be kept busy."""

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from embedder_svc.network.model import Model
from embedder_svc.photos import preprocess
from embedder_svc.serving.config import EmbedderConfig
from embedder_svc.serving.decoder import Decoder
from embedder_svc.serving.pipeline import Pipeline
from embedder_svc.serving.service import SERVICE, EmbedderService
from svckit.server import Server

TIMEOUT_S = 20


@dataclass
class Served:
    stub: object
    pipeline: Pipeline
    model: Model
    decoder: Decoder
    batches: list[int]
    """Photos in each run of the network."""

    @property
    def photos_inside(self):
        return self.pipeline._admission.inside

    def embed(self, *images, **options):
        request = embedder_pb2.EmbedRequest(images=[as_image(image) for image in images])
        return self.stub.Embed(request, **{"timeout": TIMEOUT_S, **options})

    async def refusal(self, *images, **options):
        """The status, ErrorInfo's reason, and (field, reason) of each violation."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.embed(*images, **options)
        found = unpacked(caught.value)
        request = found[error_details_pb2.BadRequest]
        violations = [(violation.field, violation.reason) for violation in request.field_violations]
        return caught.value.code(), found[error_details_pb2.ErrorInfo].reason, violations

    @asynccontextmanager
    async def decoding_held(self):
        """While inside, the decoding thread is busy; what it has to do meanwhile, waits."""
        go = threading.Event()
        self.decoder._threads.submit(go.wait, TIMEOUT_S)
        try:
            yield
        finally:
            go.set()
            await asyncio.get_running_loop().run_in_executor(self.decoder._threads, lambda: None)


def as_image(image):
    return image if isinstance(image, embedder_pb2.Image) else embedder_pb2.Image(content=image)


def unpacked(error):
    """The error's details, by their type."""
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    found = {kind: kind() for kind in kinds}
    for detail in rpc_status.from_call(error).details:
        for message in found.values():
            detail.Unpack(message)
    return found


@pytest.fixture
async def served(tiny_bundle):
    config = EmbedderConfig(port=0, max_images=4, max_queue=6, drain_pause_s=0.0, model=tiny_bundle)
    model = Model.open(tiny_bundle, device="cpu", threads=1)
    decoder = Decoder(model.info.resizing, config.limits, threads=1)
    batches = []

    def run(pixels):
        batches.append(len(pixels))
        return list(model.embed(pixels))

    server = Server(config, name="embedder")
    batcher = server.metrics.batcher("embed", run, max_batch=model.max_batch, max_queue=config.max_queue)
    servicer = EmbedderService(config)
    pipeline = Pipeline(model, decoder, batcher, max_images=config.max_images, max_queue=config.max_queue)
    servicer.open(pipeline)
    add_to_server = embedder_pb2_grpc.add_EmbedderServiceServicer_to_server
    server.add(add_to_server, servicer, SERVICE, before=servicer.before)
    await server.start()
    await server.open()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Served(embedder_pb2_grpc.EmbedderServiceStub(channel), pipeline, model, decoder, batches)
        await server.stop()
    await batcher.close()
    decoder.close()


@pytest.fixture
def photos(encode):
    rng = np.random.default_rng(0)
    return [encode(rng.integers(0, 256, (40, 60, 3), np.uint8), "PNG") for _ in range(4)]


class TestEmbed:
    async def test_gives_a_row_for_each_photo_in_order(self, served, photos):
        response = await served.embed(*photos)
        limits = EmbedderConfig().limits
        pixels = [preprocess.decode(photo, resize=served.model.info.resizing, limits=limits) for photo in photos]
        assert response.embeddings.model == served.model.info.fingerprint
        assert np.array_equal(wire.unpack(response.embeddings), served.model.embed(pixels))

    async def test_tells_where_the_time_went(self, served, photos):
        times = (await served.embed(*photos)).times
        assert times.decode_ms > 0
        assert times.infer_ms > 0
        assert times.queue_ms >= 0

    async def test_embeds_the_crop_that_was_asked_for(self, served, scene, encode):
        content = encode(scene, "PNG")
        half = embedder_pb2.Image(content=content, crop=embedder_pb2.Box(left=0, top=0, right=0.5, bottom=1))
        whole = embedder_pb2.Image(content=content, crop=embedder_pb2.Box(left=0, top=0, right=1, bottom=1))
        rows = wire.unpack((await served.embed(half, whole, content, encode(scene[:, :48].copy(), "PNG"))).embeddings)
        assert np.array_equal(rows[0], rows[3])
        assert np.array_equal(rows[1], rows[2])
        assert not np.array_equal(rows[0], rows[1])

    async def test_serves_many_callers_at_once(self, served, photos):
        alone = [wire.unpack((await served.embed(photo)).embeddings) for photo in photos]
        together = await asyncio.gather(*(served.embed(photo) for photo in photos))
        assert all(np.array_equal(wire.unpack(r.embeddings), row) for r, row in zip(together, alone, strict=True))


class TestBadPhotos:
    async def test_are_all_told_at_once_and_nothing_is_embedded(self, served, photos):
        no_crop = embedder_pb2.Image(content=photos[0], crop=embedder_pb2.Box())
        assert await served.refusal(b"", photos[1], b"text", no_crop) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_IMAGE",
            [
                ("images[0].content", "IMAGE_EMPTY"),
                ("images[2].content", "IMAGE_FORMAT"),
                ("images[3].crop", "INVALID_CROP"),
            ],
        )
        assert served.batches == []

    @pytest.mark.parametrize("count", [0, 5])
    async def test_none_or_too_many(self, served, photos, count):
        assert await served.refusal(*[photos[0]] * count) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_IMAGE_COUNT",
            [("images", "INVALID_IMAGE_COUNT")],
        )


class TestOverload:
    async def test_is_told_at_once_before_anything_is_decoded(self, served, photos):
        async with served.decoding_held():
            accepted = [asyncio.ensure_future(served.embed(*photos)), asyncio.ensure_future(served.embed(*photos[:2]))]
            await until(lambda: served.photos_inside == 6)
            status, reason, _ = await served.refusal(photos[0])
            assert (status, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
            assert served.photos_inside == 6
        await asyncio.gather(*accepted)
        await served.embed(photos[0])

    async def test_is_told_before_the_photos_are_read(self, served, photos, monkeypatch):
        async with served.decoding_held():
            accepted = [asyncio.ensure_future(served.embed(*photos[:3])) for _ in range(2)]
            await until(lambda: served.photos_inside == 6)
            monkeypatch.setattr("svckit.interceptor._request", None)  # what would read them
            status, reason, _ = await served.refusal(photos[0])
            monkeypatch.undo()
            assert (status, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        await asyncio.gather(*accepted)

    async def test_a_call_that_could_not_be_answered_in_time_is_refused_at_once(self, served, photos):
        served.pipeline._admission._photo_s = TIMEOUT_S / 2
        async with served.decoding_held():
            accepted = asyncio.ensure_future(served.embed(photos[0]))
            await until(lambda: served.photos_inside == 1)
            status, reason, _ = await served.refusal(photos[0])
            assert (status, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
            assert served.photos_inside == 1
        await accepted

    async def test_comes_with_a_time_to_try_again(self, served, photos):
        async with served.decoding_held():
            accepted = [asyncio.ensure_future(served.embed(*photos[:3])) for _ in range(2)]
            await until(lambda: served.photos_inside == 6)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.embed(photos[0])
        assert unpacked(caught.value)[error_details_pb2.RetryInfo].retry_delay.ToNanoseconds() > 0
        await asyncio.gather(*accepted)


class TestCallersWhoLeft:
    @pytest.fixture
    def decoded(self, monkeypatch):
        """Counts what is decoded."""
        contents = []
        whole = preprocess.decode

        def counted(content, **options):
            contents.append(content)
            return whole(content, **options)

        monkeypatch.setattr(preprocess, "decode", counted)
        return contents

    async def test_cost_no_decoding_and_no_inference(self, served, photos, decoded):
        async with served.decoding_held():
            leaving = served.embed(*photos)
            await until(lambda: served.photos_inside == 4)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            await until(lambda: served.photos_inside == 0)
        assert decoded == []
        assert served.batches == []

    async def test_or_whose_deadline_passed_either(self, served, photos, decoded):
        async with served.decoding_held():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.embed(*photos, timeout=0.2)
            await until(lambda: served.photos_inside == 0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert decoded == []
        assert served.batches == []


async def until(condition):
    """Lets the event loop run until the condition holds."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110  # nothing tells when a call has reached the servicer
            await asyncio.sleep(0.001)


class TestGetModel:
    async def test_describes_the_model_and_the_limits(self, served):
        answer = await served.stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)
        info = served.model.info
        assert answer.model == embedder_pb2.Model(
            fingerprint=info.fingerprint,
            name="tiny",
            dimension=16,
            precision="fp32",
            input_size=32,
            resize="squash",
            normalized=True,
            provider="CPUExecutionProvider",
        )
        assert answer.limits == embedder_pb2.Limits(
            max_images=4,
            max_image_bytes=20_000_000,
            max_image_pixels=25_000_000,
            max_aspect_ratio=10,
            max_request_bytes=32 * 2**20,
        )
