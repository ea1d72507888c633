"""What people have is accepted, by every face of the embedder and offline, and embedded as the whole file is."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2

from embedder_svc.network.cutter import Cutter
from embedder_svc.network.model import Model

TIMEOUT_S = 60


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_profile(png):
    profile = chunk(b"iCCP", b"camera\0\0" + zlib.compress(bytes(3 << 20)))
    return png[:33] + profile + png[33:]


@pytest.fixture(scope="module")
def photos(street, encode):
    """Pairs of a photo that was refused or spoilt, and a whole file of the same pixels."""
    pixels = street({(1, 1): 250})
    large = Image.fromarray(pixels).resize((8064, 6048))
    clear = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    png, jpeg = encode(pixels, "PNG"), encode(pixels, "JPEG", quality=95)
    return {
        "a JPEG without its end": (jpeg[:-2], jpeg),
        "a progressive one": (encode(pixels, "JPEG", quality=95, progressive=True)[:-2], jpeg),
        "a PNG with a large profile": (with_profile(png), png),
        "a BMP whose alpha is 0": (encode(clear, "BMP"), png),
        "a PNG whose alpha is 0": (encode(clear, "PNG"), png),
        "48 megapixels": (encode(large, "JPEG", quality=60), encode(large.resize((2016, 1512)), "JPEG")),
        "HEIC": (encode(pixels, "HEIF", quality=95), png),
        "AVIF": (encode(pixels, "AVIF", quality=95), png),
    }


@pytest.fixture(scope="module")
def stub(module_spawn, module_dial, car_bundle):
    """A server with the limits that it has unless told otherwise."""
    return module_dial(module_spawn("--model", car_bundle).ready()["port"])


def embedded(stub, *contents, subject=embedder_pb2.SUBJECT_MAIN_CAR):
    images = [embedder_pb2.Image(content=content, subject=subject) for content in contents]
    return wire.unpack(stub.Embed(embedder_pb2.EmbedRequest(images=images), timeout=TIMEOUT_S).embeddings)


def test_each_is_embedded_as_the_whole_file_is(stub, photos):
    for name, (content, whole) in photos.items():
        for subject in (embedder_pb2.SUBJECT_WHOLE, embedder_pb2.SUBJECT_MAIN_CAR):
            one, other = embedded(stub, content, whole, subject=subject)
            assert float(one @ other) > 0.99, name


def test_cars_are_found_in_each(stub, photos):
    images = [embedder_pb2.Image(content=content) for content, _ in photos.values()]
    found = stub.Detect(embedder_pb2.DetectRequest(images=images), timeout=TIMEOUT_S)
    assert [len(photo.cars) for photo in found.detections] == [1] * len(photos)


def test_offline_gives_the_pixels_that_are_served(photos, car_bundle):
    cutter = Cutter(Model.open(car_bundle, device="cpu", threads=1, max_batch=1), whole=True)
    for name, (content, whole) in photos.items():
        (one, _), (other, _) = cutter.part(content), cutter.part(whole)
        assert np.abs(one.astype(int) - other).mean() < 4, name
