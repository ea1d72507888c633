"""The service with a model that finds cars, in this process, wired as `vmmr-embedder serve` wires it, on real gRPC."""

import asyncio
import io
import threading
import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from embedder_svc.__main__ import _pipeline
from embedder_svc.network.model import Model
from embedder_svc.photos import preprocess
from embedder_svc.serving.config import EmbedderConfig
from embedder_svc.serving.pipeline import Pipeline
from embedder_svc.serving.service import SERVICE, EmbedderService
from svckit.config import ConfigError
from svckit.server import Server
from svckit.turns import beyond

TIMEOUT_S = 20
WHOLE, MAIN, EVERY = embedder_pb2.SUBJECT_WHOLE, embedder_pb2.SUBJECT_MAIN_CAR, embedder_pb2.SUBJECT_EVERY_CAR
FULL = (0.0, 0.0, 1.0, 1.0)
MAX_QUEUE = 12


@dataclass
class Served:
    stub: object
    pipeline: Pipeline
    model: Model

    @property
    def inside(self):
        return self.pipeline._admission.inside

    async def embed(self, *images, **options):
        request = embedder_pb2.EmbedRequest(images=[as_image(image) for image in images])
        return await self.stub.Embed(request, **{"timeout": TIMEOUT_S, **options})

    async def detect(self, *images):
        request = embedder_pb2.DetectRequest(images=[as_image(image) for image in images])
        return await self.stub.Detect(request, timeout=TIMEOUT_S)

    def alone(self, content, crop=None):
        """The embedding of a photo, or of a crop of it, by the model itself."""
        limits = EmbedderConfig().limits
        pixels = preprocess.decode(content, resize=self.model.info.resizing, crop=crop, limits=limits)
        return self.model.embed([pixels])[0]


def as_image(image):
    if isinstance(image, embedder_pb2.Image):
        return image
    content, subject = image if isinstance(image, tuple) else (image, 0)
    return embedder_pb2.Image(content=content, subject=subject)


async def refusal(call):
    """The status, ErrorInfo's reason, and (field, reason) of each violation."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest)
    found = {kind: kind() for kind in kinds}
    for detail in rpc_status.from_call(caught.value).details:
        for message in found.values():
            detail.Unpack(message)
    violations = [(each.field, each.reason) for each in found[error_details_pb2.BadRequest].field_violations]
    return caught.value.code(), found[error_details_pb2.ErrorInfo].reason, violations


@pytest.fixture
def serve(car_bundle):
    """Serve a bundle while a block runs, with these settings."""

    @asynccontextmanager
    async def serving(path=car_bundle, **settings):
        known = {"max_images": 4, "max_queue": MAX_QUEUE, "decode_threads": 1, "threads": 1}
        config = EmbedderConfig(port=0, drain_pause_s=0.0, model=path, **known | settings)
        model = Model.open(path, device="cpu", threads=1)
        server = Server(config, name="embedder")
        servicer = EmbedderService(config)
        add = embedder_pb2_grpc.add_EmbedderServiceServicer_to_server
        server.add(add, servicer, SERVICE, before=servicer.before)
        await server.start()
        async with _pipeline(model, config, server.metrics) as pipeline:
            servicer.open(pipeline)
            await server.open()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                yield Served(embedder_pb2_grpc.EmbedderServiceStub(channel), pipeline, model)
            await server.stop()

    return serving


@pytest.fixture
async def served(serve):
    async with serve() as started:
        yield started


@pytest.fixture
def two_cars(street, encode):
    """A photo with a car at the centre, and a redder one in the corner."""
    return encode(street({(1, 1): 200, (3, 3): 255}), "PNG")


@pytest.fixture
def no_cars(street, encode):
    return encode(street({}), "PNG")


def cut_of(part):
    cut = part.cut
    return cut.left, cut.top, cut.right, cut.bottom


def as_crop(content, part):
    left, top, right, bottom = cut_of(part)
    return embedder_pb2.Image(content=content, crop=embedder_pb2.Box(left=left, top=top, right=right, bottom=bottom))


class TestEmbed:
    async def test_embeds_the_main_car_unless_it_is_told_otherwise(self, served, two_cars):
        response = await served.embed(two_cars, (two_cars, MAIN))
        assert [part.image for part in response.parts] == [0, 1]
        assert [cut_of(part) for part in response.parts] == [(0.25, 0.25, 0.5, 0.5)] * 2
        assert [part.cut.no_car_found for part in response.parts] == [False, False]
        rows = wire.unpack(response.embeddings)
        assert np.array_equal(rows[0], served.alone(two_cars, preprocess.Box(0.25, 0.25, 0.5, 0.5)))
        assert np.array_equal(rows[0], rows[1])

    async def test_tells_how_sure_the_detector_is(self, served, two_cars):
        (part,) = (await served.embed(two_cars)).parts
        ((main, _),) = [found.cars for found in (await served.detect(two_cars)).detections]
        assert part.cut.car_score == main.score
        assert 0.35 < main.score < 1

    async def test_embeds_every_car_the_main_one_first(self, served, two_cars, no_cars):
        response = await served.embed((two_cars, EVERY), (no_cars, EVERY), (two_cars, WHOLE))
        assert [(part.image, cut_of(part)) for part in response.parts] == [
            (0, (0.25, 0.25, 0.5, 0.5)),
            (0, (0.75, 0.75, 1.0, 1.0)),
            (1, FULL),
            (2, FULL),
        ]
        rows = wire.unpack(response.embeddings)
        expected = [served.alone(two_cars, preprocess.Box(*cut_of(part))) for part in response.parts[:2]]
        assert np.array_equal(rows, [*expected, served.alone(no_cars), served.alone(two_cars)])

    async def test_embeds_no_more_cars_than_the_limit(self, served, street, encode):
        photo = encode(street({(x, y): 250 for x in range(4) for y in range(2)}), "PNG")
        limits = (await served.stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)).limits
        assert len((await served.embed((photo, EVERY))).parts) == limits.max_cars == 5

    async def test_embeds_a_photo_without_a_car_whole_and_says_so(self, served, no_cars):
        response = await served.embed(no_cars)
        (part,) = response.parts
        assert cut_of(part) == FULL
        assert part.cut.no_car_found
        assert not part.cut.HasField("car_score")
        assert np.array_equal(wire.unpack(response.embeddings)[0], served.alone(no_cars))

    async def test_looks_for_no_car_in_a_crop_or_the_whole(self, served, two_cars):
        crop = embedder_pb2.Box(left=0.5, top=0, right=1, bottom=0.7)
        response = await served.embed(embedder_pb2.Image(content=two_cars, crop=crop), (two_cars, WHOLE))
        assert [cut_of(part) for part in response.parts] == [(0.5, 0.0, 1.0, pytest.approx(0.7)), FULL]
        assert not any(part.cut.HasField("car_score") or part.cut.no_car_found for part in response.parts)
        assert response.times.detect_ms == 0

    async def test_tells_how_long_it_looked_for_cars(self, served, two_cars):
        assert (await served.embed(two_cars)).times.detect_ms > 0

    async def test_a_car_and_the_crop_that_was_told_have_the_same_embedding_to_the_bit(self, served, encode):
        rng = np.random.default_rng(0)
        photos = []
        for size in ((77, 61), (301, 200), (1999, 1501)):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[..., 1:] = rng.integers(0, 99, (size[1], size[0], 2))
            pixels[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] = (250, 3, 90)
            photos.append(encode(pixels, "JPEG"))
        response = await served.embed(*photos)
        assert all(part.cut.HasField("car_score") for part in response.parts)
        crops = [as_crop(photo, part) for photo, part in zip(photos, response.parts, strict=True)]
        again = await served.embed(*crops)
        assert response.embeddings == again.embeddings


class TestDetect:
    async def test_tells_the_cars_of_each_photo_the_main_one_first(self, served, two_cars, no_cars):
        response = await served.detect(two_cars, no_cars)
        boxes = [
            [(car.box.left, car.box.top, car.box.right, car.box.bottom) for car in each.cars]
            for each in response.detections
        ]
        assert boxes == [[(0.25, 0.25, 0.5, 0.5), (0.75, 0.75, 1.0, 1.0)], []]
        assert response.times.decode_ms > 0
        assert response.times.infer_ms == 0

    async def test_refuses_crops_and_subjects(self, served, two_cars):
        cropped = embedder_pb2.Image(content=two_cars, crop=embedder_pb2.Box(right=1, bottom=1))
        assert await refusal(served.detect(two_cars, cropped)) == (
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_IMAGE", [("images[1].crop", "INVALID_CROP")],
        )  # fmt: skip
        assert await refusal(served.detect((two_cars, WHOLE))) == (
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SUBJECT", [("images[0].subject", "INVALID_SUBJECT")],
        )  # fmt: skip

    async def test_names_every_bad_photo(self, served, two_cars):
        assert await refusal(served.detect(two_cars, b"", b"text")) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_IMAGE",
            [("images[1].content", "IMAGE_EMPTY"), ("images[2].content", "IMAGE_FORMAT")],
        )

    @pytest.mark.parametrize("count", [0, 5])
    async def test_of_none_or_too_many(self, served, two_cars, count):
        _, reason, violations = await refusal(served.detect(*[two_cars] * count))
        assert (reason, violations) == ("INVALID_IMAGE_COUNT", [("images", "INVALID_IMAGE_COUNT")])


class TestRequests:
    async def test_a_subject_that_is_not_listed_is_refused(self, served, two_cars):
        assert await refusal(served.embed(two_cars, (two_cars, 4))) == (
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SUBJECT", [("images[1].subject", "INVALID_SUBJECT")],
        )  # fmt: skip

    async def test_a_crop_and_a_subject_are_refused_together(self, served, two_cars):
        both = embedder_pb2.Image(content=two_cars, subject=WHOLE, crop=embedder_pb2.Box(right=1, bottom=1))
        assert await refusal(served.embed(both)) == (
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_IMAGE", [("images[0].crop", "INVALID_CROP")],
        )  # fmt: skip

    @pytest.mark.parametrize("ask", ["embed", "detect"])
    async def test_too_many_images_are_refused_before_each_is_looked_at(self, served, ask):
        many = [embedder_pb2.Image(subject=99)] * 1000  # a message may hold millions
        _, reason, violations = await refusal(getattr(served, ask)(*many))
        assert (reason, violations) == ("INVALID_IMAGE_COUNT", [("images", "INVALID_IMAGE_COUNT")])

    async def test_every_car_of_more_photos_than_may_fit_is_refused_before_anything_is_decoded(self, served):
        _, reason, violations = await refusal(served.embed(*[(b"never read", EVERY)] * 3))
        assert (reason, violations) == ("INVALID_IMAGE_COUNT", [("images", "INVALID_IMAGE_COUNT")])

    async def test_a_queue_that_holds_fewer_than_the_cars_of_one_photo_is_refused_at_the_start(self, serve):
        with pytest.raises(ConfigError, match=r"--max-queue must be >= 5, .* got 4"):
            async with serve(max_queue=4):
                pass


class TestWithoutADetector:
    @pytest.fixture
    async def served(self, serve, tiny_bundle):
        async with serve(tiny_bundle) as started:
            yield started

    async def test_photos_are_embedded_whole_and_the_parts_say_so(self, served, two_cars):
        response = await served.embed(two_cars, (two_cars, WHOLE))
        assert [(part.image, cut_of(part), part.cut.no_car_found) for part in response.parts] == [
            (0, FULL, False),
            (1, FULL, False),
        ]
        assert np.array_equal(wire.unpack(response.embeddings), [served.alone(two_cars)] * 2)

    @pytest.mark.parametrize("subject", [MAIN, EVERY])
    async def test_cars_are_refused(self, served, two_cars, subject):
        assert await refusal(served.embed(two_cars, (two_cars, subject))) == (
            grpc.StatusCode.FAILED_PRECONDITION, "NO_DETECTOR", [("images[1]", "NO_DETECTOR")],
        )  # fmt: skip

    async def test_detect_is_refused(self, served, two_cars):
        status, reason, _ = await refusal(served.detect(two_cars))
        assert (status, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_DETECTOR")

    async def test_get_model_tells_of_none(self, served):
        answer = await served.stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)
        assert not answer.model.HasField("detector")
        assert answer.limits.max_cars == 0


async def test_get_model_describes_the_detector(served):
    answer = await served.stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)
    assert answer.model.detector == embedder_pb2.Detector(name="tiny-red", threshold=0.35, margin=0.0)


class Held:
    """Holds a function's callers until `go`, and counts them."""

    def __init__(self, function):
        self.function = function
        self.go = threading.Event()
        self.entered = 0

    def __call__(self, *args, **options):
        self.entered += 1
        assert self.go.wait(TIMEOUT_S)
        return self.function(*args, **options)


async def until(condition):
    """Lets the event loop run until the condition holds."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110  # nothing tells when a call has reached the servicer
            await asyncio.sleep(0.001)


class TestRoom:
    """A photo of which every car is wanted counts as many cars as it may have, until it is known how many it has."""

    async def test_every_car_comes_in_with_room_for_all_and_gives_up_what_it_does_not_need(
        self, serve, two_cars, monkeypatch
    ):
        async with serve() as served:
            held = Held(served.pipeline._batcher._run)
            monkeypatch.setattr(served.pipeline._batcher, "_run", held)
            monkeypatch.setattr(served.pipeline._batcher, "_alone", held)
            looking = Held(served.model.detector.find)
            detector = served.pipeline._finder._batcher
            monkeypatch.setattr(detector, "_run", looking)
            call = asyncio.ensure_future(served.embed((two_cars, EVERY), two_cars))
            await until(lambda: looking.entered)
            assert served.inside == 5 + 1
            looking.go.set()
            await until(lambda: held.entered)
            assert served.inside == 2 + 1
            held.go.set()
            assert len((await call).parts) == 3
            assert served.inside == 0

    async def test_of_a_call_that_failed_is_given_back(self, served, two_cars):
        await refusal(served.embed((two_cars, EVERY), b""))
        assert served.inside == 0

    async def test_photos_that_are_only_looked_at_count_too(self, serve, two_cars, monkeypatch):
        async with serve() as served:
            looking = Held(served.model.detector.find)
            monkeypatch.setattr(served.pipeline._finder._batcher, "_run", looking)
            call = asyncio.ensure_future(served.detect(*[two_cars] * 3))
            await until(lambda: looking.entered)
            assert served.inside == 3
            looking.go.set()
            assert len((await call).detections) == 3
            assert served.inside == 0

    async def test_a_full_server_refuses_detect_too_before_its_photos_are_read(self, served, two_cars, monkeypatch):
        served.pipeline._admission.came("another", beyond(MAX_QUEUE))
        monkeypatch.setattr("svckit.interceptor._request", None)  # what would read them
        status, reason, _ = await refusal(served.detect(two_cars))
        assert (status, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")


class TestMemory:
    async def test_only_so_many_decoded_photos_wait_for_the_detector(self, serve, two_cars, monkeypatch):
        opened = []
        decoded = preprocess.Decoded.__init__

        def counted(self, *args, **options):
            opened.append(self)
            decoded(self, *args, **options)

        monkeypatch.setattr(preprocess.Decoded, "__init__", counted)
        async with serve(max_images=12) as served:
            looking = Held(served.model.detector.find)
            monkeypatch.setattr(served.pipeline._finder._batcher, "_run", looking)
            call = asyncio.ensure_future(served.embed(*[two_cars] * 12))
            room = served.pipeline._finder._room
            await until(lambda: not room.free and len(opened) == 4)
            assert served.pipeline._finder._batcher.waiting <= 4
            looking.go.set()
            assert len((await call).parts) == 12
            assert len(opened) == 12


class TestCache:
    async def test_keeps_the_rows_of_every_car_apart_from_the_main_one_and_the_whole(self, serve, two_cars, no_cars):
        async with serve(cache_photos=8, max_images=12) as served:
            asked = ((two_cars, EVERY), two_cars, (two_cars, WHOLE), (no_cars, MAIN))
            first = await served.embed(*asked)
            looking = Held(served.model.detector.find)
            served.pipeline._finder._batcher._run = looking  # whoever is looked at now waits for ever
            again = await served.embed(*asked, (two_cars, MAIN))
            assert (
                again.embeddings.data == first.embeddings.data + wire.pack("", wire.unpack(first.embeddings)[2:3]).data
            )
            assert list(again.parts[:5]) == list(first.parts)
            assert looking.entered == 0


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


class TestHostilePhotos:
    """Photos made to harm meet the same limits on every way: cars looked for or not."""

    @pytest.fixture
    def bomb(self, encode):
        """A PNG of a few hundred bytes whose header says 60,000 x 60,000 pixels."""
        content = bytearray(encode(np.zeros((4, 4, 3), np.uint8), "PNG"))
        content[16:24] = (60_000).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
        return bytes(content)

    @pytest.fixture
    def hostile(self, encode, two_cars, bomb):
        noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
        return {
            "IMAGE_TOO_MANY_PIXELS": bomb,
            "IMAGE_ASPECT_RATIO": encode(np.full((3, 400, 3), (255, 0, 0), np.uint8), "PNG"),
            "IMAGE_TRUNCATED": jpeg(noise)[:-3000],
            "IMAGE_EMPTY": b"",
            "IMAGE_FORMAT": b"no photo",
        }

    @pytest.mark.parametrize("subject", [0, MAIN, EVERY, WHOLE])
    async def test_are_refused_by_name(self, served, hostile, subject):
        for reason, content in hostile.items():
            assert await refusal(served.embed((content, subject))) == (
                grpc.StatusCode.INVALID_ARGUMENT, "INVALID_IMAGE", [("images[0].content", reason)],
            )  # fmt: skip
        assert served.inside == 0

    async def test_are_refused_by_detect(self, served, hostile):
        for reason, content in hostile.items():
            assert (await refusal(served.detect(content)))[2] == [("images[0].content", reason)]

    @pytest.mark.parametrize("subject", [0, MAIN, EVERY])
    async def test_of_one_pixel_are_embedded_whole(self, served, encode, subject):
        red = encode(np.full((1, 1, 3), (255, 0, 0), np.uint8), "PNG")
        (part,) = (await served.embed((red, subject))).parts
        assert part.cut.no_car_found
        assert not (await served.detect(red)).detections[0].cars

    async def test_that_are_long_and_narrow_have_no_car_as_long(self, served, encode):
        red = np.full((40, 399, 3), (0, 80, 80), np.uint8)
        red[10:20, :] = (255, 0, 0)
        (part,) = (await served.embed(encode(red, "PNG"))).parts
        assert (cut_of(part), part.cut.no_car_found) == (FULL, True)

    async def test_a_slow_photo_holds_up_nobody_else(self, serve, two_cars, no_cars, monkeypatch):
        slow = preprocess.Decoded.__init__
        held = Held(slow)

        def decoded(self, content, **options):
            (held if content == no_cars else slow)(self, content, **options)

        monkeypatch.setattr(preprocess.Decoded, "__init__", decoded)
        async with serve(decode_threads=2) as served:
            waiting = asyncio.ensure_future(served.embed(no_cars))
            await until(lambda: held.entered)
            for _ in range(10):
                assert (await served.embed((two_cars, EVERY))).parts
            assert not waiting.done()
            held.go.set()
            assert (await waiting).parts[0].cut.no_car_found


class TestCallersWhoLeft:
    async def test_cost_no_detection_and_no_inference(self, serve, two_cars, monkeypatch):
        async with serve() as served:
            looking = Held(served.model.detector.find)
            monkeypatch.setattr(served.pipeline._finder._batcher, "_run", looking)
            embedded = []
            monkeypatch.setattr(served.pipeline._batcher, "_run", embedded.append)
            monkeypatch.setattr(served.pipeline._batcher, "_alone", embedded.append)
            leaving = asyncio.ensure_future(served.embed(*[two_cars] * 4))
            await until(lambda: looking.entered)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            await until(lambda: served.inside == 0)
            looking.go.set()
            await until(lambda: not served.pipeline._finder._batcher._running)
            assert looking.entered == 1
            assert embedded == []
            monkeypatch.undo()
            room = served.pipeline._finder._room
            await until(lambda: room.free)
