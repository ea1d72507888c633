"""`vmmr-embedder serve` as a real process."""

import fcntl
import io
import signal
import struct
import threading
import urllib.request
import zipfile
import zlib

import grpc
import numpy as np
import onnxruntime
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2

from embedder_svc.network.model import Model
from embedder_svc.photos import preprocess
from embedder_svc.serving.config import EmbedderConfig

TIMEOUT_S = 30
INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED


def request(*contents, crop=None):
    images = [embedder_pb2.Image(content=content, crop=crop) for content in contents]
    return embedder_pb2.EmbedRequest(images=images)


def violations(error):
    """(field, reason) of each."""
    found = error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(found)
    return [(violation.field, violation.reason) for violation in found.field_violations]


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("car.jpg", b"not really")
    return file.getvalue()


def bomb():
    """A PNG of 100 megapixels, all of them black, in 100 KB."""

    def chunk(kind, data=b""):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(b"\0" * 10_001) for _ in range(10_000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND")


def metric(port, name, **labels):
    """The sum of a metric over its labels, or over those that have these values."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S).read().decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


@pytest.fixture
def photo(scene, encode):
    return encode(scene, "JPEG")


class TestBadInput:
    """Each is refused with its status and detail, and the next good request is answered."""

    @pytest.fixture(scope="class")
    @classmethod
    def stub(cls, tiny_bundle, module_spawn, module_dial):
        return module_dial(module_spawn("--model", tiny_bundle).ready()["port"])

    def check(self, stub, photo, bad, code, expected):
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Embed(bad, timeout=TIMEOUT_S)
            assert (caught.value.code(), violations(caught.value)) == (code, expected)
        assert len(wire.unpack(stub.Embed(request(photo), timeout=TIMEOUT_S).embeddings)) == 1

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "IMAGE_EMPTY"),
            (b"\xff", "IMAGE_FORMAT"),
            (b"make, model and year, please", "IMAGE_FORMAT"),
            (zipped(), "IMAGE_FORMAT"),
            (bomb(), "IMAGE_TOO_MANY_PIXELS"),
            (b"\xff\xd8\xff" + b"\0" * 20_000_000, "IMAGE_TOO_LARGE"),
        ],
        ids=["empty", "one byte", "text", "zip", "100 megapixels", "too many bytes"],
    )
    def test_what_is_no_photo(self, stub, photo, content, reason):
        self.check(stub, photo, request(photo, content), INVALID, [("images[1].content", reason)])

    def test_a_truncated_jpeg(self, stub, photo):
        self.check(stub, photo, request(photo[:-500]), INVALID, [("images[0].content", "IMAGE_TRUNCATED")])

    @pytest.mark.parametrize(
        "crop", [{}, {"left": 0.5, "right": 0.5, "bottom": 1}, {"right": float("nan"), "bottom": 1}]
    )
    def test_a_crop_of_nothing(self, stub, photo, crop):
        bad = request(photo, crop=embedder_pb2.Box(**crop))
        self.check(stub, photo, bad, INVALID, [("images[0].crop", "INVALID_CROP")])

    @pytest.mark.parametrize("count", [0, 33])
    def test_no_images_and_too_many(self, stub, photo, count):
        self.check(stub, photo, request(*[photo] * count), INVALID, [("images", "INVALID_IMAGE_COUNT")])

    def test_an_over_size_message(self, stub, photo):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Embed(request(*[b"\0" * 12_000_000] * 3), timeout=TIMEOUT_S)
        assert caught.value.code() == EXHAUSTED
        stub.Embed(request(photo), timeout=TIMEOUT_S)


class TestRefusesToStart:
    def error(self, process):
        told = process.fatal()
        assert not process.logged("ready")
        return told

    def test_with_a_damaged_model(self, spawn, make_bundle, tmp_path):
        make_bundle(tmp_path / "model")
        graph = tmp_path / "model" / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:-1] + b"!")
        message = self.error(spawn("--model", tmp_path / "model"))
        assert message.startswith(f"{graph}: is damaged: its sha256 is ")

    def test_with_no_model(self, spawn, tmp_path):
        message = self.error(spawn("--model", "none", cwd=tmp_path))
        assert message == f"--model (VMMR_EMBEDDER_MODEL): there is no folder {tmp_path}/none"

    def test_with_a_wrong_setting(self, spawn):
        process = spawn(env={"VMMR_EMBEDDER_MAX_BATCH": "0"})
        assert self.error(process) == "VMMR_EMBEDDER_MAX_BATCH must be >= 1, got 0"

    @pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA")
    def test_without_the_gpu_it_was_told_to_use(self, spawn, tiny_bundle):
        message = self.error(spawn("--model", tiny_bundle, "--device", "cuda"))
        assert message.startswith("device cuda: this onnxruntime has no CUDAExecutionProvider")


def test_a_variable_that_is_no_setting_is_logged_and_one_that_kubernetes_sets_changes_nothing(spawn, tiny_bundle):
    """Beside Services called `embedder` and `vmmr-embedder`, with a setting that is misspelt."""
    address = "tcp://10.0.0.11:50051"
    services = {
        "EMBEDDER_PORT": address,
        "VMMR_EMBEDDER_METRICS_PORT": address,
        "VMMR_EMBEDDER_SERVICE_HOST": "10.0.0.11",
    }
    process = spawn("--model", tiny_bundle, env={"VMMR_EMBEDDER_MAXBATCH": "2", **services})
    assert process.ready()
    told = "VMMR_EMBEDDER_MAXBATCH is not read: there is no such setting; VMMR_EMBEDDER_MAX_BATCH is one"
    assert [line["level"] for line in process.logged(told)] == ["WARNING"]
    assert len([line for line in process.lines if "is not read" in line]) == 1


DECODING_HELD = """
import fcntl, sys
from embedder_svc.photos import preprocess
from embedder_svc.__main__ import main
lock, decode = open(sys.argv.pop(1)), preprocess.decode
def held(*args, **options):
    fcntl.flock(lock, fcntl.LOCK_SH)
    fcntl.flock(lock, fcntl.LOCK_UN)
    return decode(*args, **options)
preprocess.decode = held
main()
"""
"""Decodes nothing while somebody else has the lock of the file that it is given."""


def test_a_model_that_finds_cars_measures_its_detector(spawn, dial, car_bundle, street, encode):
    ready = spawn("--model", car_bundle).ready()
    stub = dial(ready["port"])
    car, nothing = encode(street({(1, 1): 255}), "PNG"), encode(street({}), "PNG")
    response = stub.Embed(request(car, nothing), timeout=TIMEOUT_S)
    assert [part.cut.no_car_found for part in response.parts] == [False, True]
    images = [embedder_pb2.Image(content=content) for content in (nothing, car)]
    found = stub.Detect(embedder_pb2.DetectRequest(images=images), timeout=TIMEOUT_S).detections
    assert [len(each.cars) for each in found] == [0, 1]
    assert metric(ready["metrics_port"], "vmmr_batch_items_sum", batcher="detect") == 4
    assert metric(ready["metrics_port"], "vmmr_batch_items_sum", batcher="embed") == 2
    assert metric(ready["metrics_port"], "vmmr_photos_without_car_total") == 2


def test_a_client_that_disconnects_costs_no_inference(run, dial, tiny_bundle, photo, tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        flags = ("--port", 0, "--metrics-port", 0, "--model", tiny_bundle, "--decode-threads", 1)
        ready = run("-c", DECODING_HELD, tmp_path / "lock", "serve", *flags).ready()
        stub, leaver = dial(ready["port"]), dial(ready["port"])
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = stub.Embed.future(request(photo), timeout=TIMEOUT_S)
        second = leaver.Embed.future(request(*[photo] * 8), timeout=TIMEOUT_S)
        wait_for(lambda: metric(ready["metrics_port"], "vmmr_calls_in_flight") == 2)
        second.cancel()
        wait_for(lambda: metric(ready["metrics_port"], "vmmr_calls_in_flight") == 1)
        assert not first.done()
    first.result()
    stub.Embed(request(photo), timeout=TIMEOUT_S)
    assert metric(ready["metrics_port"], "vmmr_batch_items_sum") == 2


def wait_for(condition):
    """Asks over and over: a server's metrics can't be awaited."""
    limit = threading.Event()
    timer = threading.Timer(TIMEOUT_S, limit.set)
    timer.start()
    while not condition():
        assert not limit.is_set()
    timer.cancel()


REFUSING = """
import asyncio, pathlib, sys
from svckit.server import Server
from embedder_svc.__main__ import main
all_have_heard = pathlib.Path(sys.argv.pop(1))
async def refuse(server):
    while not all_have_heard.exists():
        await asyncio.sleep(0.01)
Server._refuse = refuse
main()
"""
"""Refuses calls, when it stops, until the file is there that it is given."""


def test_sigterm_under_load_loses_no_accepted_call(run, dial, tiny_bundle, photo, tmp_path):
    flags = ("--port", 0, "--model", tiny_bundle, "--drain-pause-s", 0.2)
    process = run("-c", REFUSING, tmp_path / "all have heard", "serve", *flags)
    port = process.ready()["port"]
    codes, flowing = [], threading.Semaphore(0)

    def call_until_gone(stub):
        while True:
            try:
                stub.Embed(request(photo, photo), timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                codes.append(error.code())
                return
            codes.append(grpc.StatusCode.OK)
            flowing.release()

    callers = [threading.Thread(target=call_until_gone, args=[dial(port)]) for _ in range(8)]
    for caller in callers:
        caller.start()
    for _ in range(50):
        assert flowing.acquire(timeout=TIMEOUT_S)
    process.popen.send_signal(signal.SIGTERM)
    for caller in callers:
        caller.join(TIMEOUT_S)
    (tmp_path / "all have heard").touch()
    assert process.wait() == 0
    answered = [line["code"] for line in process.logged("call")]
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert codes.count(grpc.StatusCode.OK) == answered.count("OK"), "an answer was made that nobody got"
    assert set(answered) <= {"OK", "UNAVAILABLE"}


def test_a_photo_that_comes_again_is_answered_from_the_cache_with_the_same_bits(
    spawn, dial, tiny_bundle, encode, scene
):
    ready = spawn("--model", tiny_bundle, "--cache-photos", "8").ready()
    stub = dial(ready["port"])
    first, second = encode(scene, "JPEG"), encode(scene[::-1].copy(), "JPEG")
    once = wire.unpack(stub.Embed(request(first, second), timeout=TIMEOUT_S).embeddings)
    third = encode(scene[:, ::-1].copy(), "JPEG")
    again = wire.unpack(stub.Embed(request(second, third, first), timeout=TIMEOUT_S).embeddings)
    assert np.array_equal(again[[2, 0]], once)
    assert not np.array_equal(again[1], again[0])
    assert metric(ready["metrics_port"], "vmmr_batch_items_sum") == 3
    assert metric(ready["metrics_port"], "vmmr_cached_photos_total") == 2
    kept = stub.Embed(request(third), timeout=TIMEOUT_S)
    assert np.array_equal(wire.unpack(kept.embeddings)[0], again[1])
    assert kept.times.infer_ms == 0
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(request(first, b"bad", second), timeout=TIMEOUT_S)
    assert violations(caught.value) == [("images[1].content", "IMAGE_FORMAT")]


def test_of_a_folder_of_bundles_the_precision_that_is_asked_for_is_served(spawn, dial, make_bundle, tmp_path):
    made = {each: make_bundle(tmp_path / each, seed=seed, precision=each) for seed, each in enumerate(("fp32", "int8"))}
    process = spawn("--model", tmp_path, "--precision", "fp32")
    answer = dial(process.ready()["port"]).GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)
    assert answer.model.fingerprint == made["fp32"].fingerprint
    assert [line["precision"] for line in process.logged("precision")] == ["fp32"]


def test_served_embeddings_equal_those_made_offline(spawn, dial, make_bundle, real_photos, tmp_path):
    info = make_bundle(tmp_path / "model", input_size=224, resize="crop")
    stub = dial(spawn("--model", tmp_path / "model").ready()["port"])
    model = Model.open(tmp_path / "model", device="cpu")
    limits = EmbedderConfig().limits
    offline = model.embed([preprocess.decode(photo, resize=info.resizing, limits=limits) for photo in real_photos])
    calls = [stub.Embed.future(request(*real_photos[i : i + 25]), timeout=TIMEOUT_S) for i in range(0, 200, 25)]
    served = np.concatenate([wire.unpack(call.result().embeddings) for call in calls])
    assert np.array_equal(served, offline)
