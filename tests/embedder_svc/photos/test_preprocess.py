import gc
import io
import random
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from embedder_svc.exporting.torchvision_guard import import_torchvision
from embedder_svc.photos.preprocess import Box, Decoded, Limits, PhotoError, PhotoReason, Resize, decode
from svckit.photos.photo import Photo

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

LIMITS = Limits(max_bytes=20_000_000, max_pixels=50_000_000, max_aspect=10)
SQUASH, PAD, CROP = (Resize(rule, 224) for rule in ("squash", "pad", "crop"))
FORMATS = (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {}), ("GIF", {}))


@pytest.fixture(scope="module")
def mosaic(real_photos):
    """A 4032 x 3024 image of real photos at their own scale: more fine detail than any one large photo has."""
    pick = random.Random(0)
    image = Image.new("RGB", (4032, 3024))
    for y in range(0, 3024, 180):
        for x in range(0, 4032, 240):
            image.paste(Image.open(io.BytesIO(pick.choice(real_photos))).convert("RGB").resize((240, 180)), (x, y))
    return image


@pytest.fixture(scope="module")
def encoded(scene, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    images = [Image.fromarray(scene), Image.fromarray(scene).convert("P"), Image.fromarray(scene).convert("LA")]
    plain = [encode(images[0], form, **options) for form, options in FORMATS]
    tagged = [encode(images[0], form, exif=exif) for form in ("JPEG", "PNG", "WEBP")]
    return [*plain, *tagged, *(encode(image, "PNG") for image in images), encode(images[0].convert("CMYK"), "JPEG")]


class TestTorchvisionParity:
    @pytest.mark.parametrize("version", ["transforms", "transforms.v2"])
    def test_crop_is_resize_and_center_crop_to_the_pixel(self, real_photos, version):
        """The seed's transforms: Resize(256), CenterCrop(224)."""
        transforms = import_torchvision(version)
        reference = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
        for content in real_photos:
            expected = reference(Image.open(io.BytesIO(content)).convert("RGB"))
            assert np.array_equal(decode(content, resize=CROP, limits=LIMITS), np.asarray(expected))

    @pytest.mark.parametrize("version", ["transforms", "transforms.v2"])
    def test_squash_is_resize_to_a_square_to_the_pixel(self, real_photos, version):
        reference = import_torchvision(version).Resize((224, 224))
        for content in real_photos:
            expected = reference(Image.open(io.BytesIO(content)).convert("RGB"))
            assert np.array_equal(decode(content, resize=SQUASH, limits=LIMITS), np.asarray(expected))

    @pytest.mark.parametrize("size", [160, 224, 299])
    @pytest.mark.parametrize("shape", [(51, 300), (300, 51), (256, 341), (1, 7), (223, 224), (640, 427)])
    def test_crop_of_any_shape_and_size(self, encode, shape, size):
        transforms = import_torchvision("transforms.v2")
        pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        steps = [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)]
        expected = transforms.Compose(steps)(Image.fromarray(pixels))
        assert np.array_equal(
            decode(encode(pixels, "PNG"), resize=Resize("crop", size), limits=LIMITS), np.asarray(expected)
        )

    @pytest.mark.parametrize("resize", [SQUASH, CROP], ids=["squash", "crop"])
    @pytest.mark.parametrize("size", [(4032, 3024), (1801, 1351), (1792, 1792)])
    def test_large_jpegs_are_within_two_levels_on_average(self, mosaic, encode, resize, size):
        """docs/embedder.md: mean below 2.5 levels of 255, 99.9 % of values within 12."""
        transforms = import_torchvision("transforms.v2")
        steps = [transforms.Resize((224, 224))] if resize is SQUASH else [transforms.Resize(256)]
        reference = transforms.Compose([*steps, transforms.CenterCrop(224)])
        content = encode(mosaic.crop((0, 0, *size)), "JPEG", quality=90)
        expected = np.asarray(reference(Image.open(io.BytesIO(content)))).astype(int)
        difference = np.abs(decode(content, resize=resize, limits=LIMITS) - expected)
        assert difference.mean() < 2.5
        assert np.quantile(difference, 0.999) <= 12


class TestPad:
    def test_keeps_the_whole_photo_in_the_middle(self, encode):
        pixels = decode(encode(Image.new("RGB", (400, 100), "red"), "PNG"), resize=PAD, limits=LIMITS)
        assert (pixels[84:140] == (255, 0, 0)).all()
        assert (pixels[:84] == (124, 116, 104)).all()
        assert (pixels[140:] == (124, 116, 104)).all()


class TestCrop:
    BOX = Box(0.25, 0.125, 0.875, 0.75)

    @pytest.mark.parametrize("resize", [SQUASH, PAD, CROP], ids=["squash", "pad", "crop"])
    def test_equals_the_photo_cut_beforehand(self, scene, encode, resize):
        cut = scene[9:54, 24:84]
        expected = decode(encode(cut.copy(), "PNG"), resize=resize, limits=LIMITS)
        assert np.array_equal(decode(encode(scene, "PNG"), resize=resize, crop=self.BOX, limits=LIMITS), expected)

    def test_is_taken_of_the_upright_photo(self, scene, encode):
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = Image.fromarray(scene).transpose(Image.Transpose.ROTATE_90)
        expected = decode(encode(scene, "PNG"), resize=SQUASH, crop=self.BOX, limits=LIMITS)
        content = encode(turned, "PNG", exif=exif)
        assert np.array_equal(decode(content, resize=SQUASH, crop=self.BOX, limits=LIMITS), expected)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("size", [(2000, 1504), (2001, 1501)])
    def test_of_a_large_turned_jpeg_hits_the_same_spot(self, mosaic, encode, size, orientation):
        """Whatever was decoded smaller: the result is that of the photo decoded whole, turned and cut."""
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encode(mosaic.crop((0, 0, *size)), "JPEG", quality=85, exif=exif)
        box = Box(0.2516, 0.1338, 0.8713, 0.7491)
        whole = Photo.open(content, LIMITS).decode()
        expected = whole.crop(box.region(whole.size)).resize((224, 224), Image.Resampling.BILINEAR)
        got = decode(content, resize=SQUASH, crop=box, limits=LIMITS).astype(int)
        assert np.abs(got - np.asarray(expected)).mean() < 1.5


class TestReducedDecoding:
    def decoded_at(self, monkeypatch, content, **options):
        divisors = []
        whole = Photo.decode

        def decode_spied(photo, divisor=1):
            divisors.append(divisor)
            return whole(photo, divisor)

        monkeypatch.setattr(Photo, "decode", decode_spied)
        decode(content, resize=SQUASH, limits=LIMITS, **options)
        return divisors

    def test_is_used_for_large_jpegs_alone(self, monkeypatch, encode):
        large, small = Image.new("RGB", (2000, 1500)), Image.new("RGB", (800, 600))
        assert self.decoded_at(monkeypatch, encode(large, "JPEG")) == [2]
        assert self.decoded_at(monkeypatch, encode(small, "JPEG")) == [1]
        assert self.decoded_at(monkeypatch, encode(large, "PNG")) == [1]

    def test_considers_the_crop(self, monkeypatch, encode):
        content = encode(Image.new("RGB", (4000, 3000)), "JPEG")
        assert self.decoded_at(monkeypatch, content) == [4]
        assert self.decoded_at(monkeypatch, content, crop=Box(0.4, 0.4, 0.7, 0.7)) == [2]
        assert self.decoded_at(monkeypatch, content, crop=Box(0.4, 0.4, 0.6, 0.6)) == [1]


class TestAspectRatio:
    def test_of_a_photo(self, encode):
        at_most, more = encode(Image.new("L", (10, 100)), "PNG"), encode(Image.new("L", (101, 10)), "PNG")
        decode(at_most, resize=SQUASH, limits=LIMITS)
        with pytest.raises(PhotoError, match="101 x 10 pixels is too long and narrow") as caught:
            decode(more, resize=SQUASH, limits=LIMITS)
        assert caught.value.reason == PhotoReason.IMAGE_ASPECT_RATIO

    def test_of_a_crop_is_what_counts(self, encode):
        panorama, square = encode(Image.new("L", (1100, 100)), "PNG"), encode(Image.new("L", (100, 100)), "PNG")
        decode(panorama, resize=SQUASH, crop=Box(0, 0, 0.5, 1), limits=LIMITS)
        with pytest.raises(PhotoError) as caught:
            decode(square, resize=SQUASH, crop=Box(0, 0, 1, 0.05), limits=LIMITS)
        assert caught.value.reason == PhotoReason.INVALID_CROP


class TestAnyBytes:
    """Whatever is sent: pixels, or PhotoError, and soon."""

    LIMITS = Limits(max_bytes=200_000, max_pixels=300_000, max_aspect=10)
    BUDGET = settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])

    def pixels_or_photo_error(self, content):
        try:
            pixels = decode(content, resize=Resize("squash", 32), limits=self.LIMITS)
        except PhotoError:
            return
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8

    @BUDGET
    @given(
        st.binary(max_size=300),
        st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"GIF89a"]),
    )
    def test_random(self, tail, head):
        self.pixels_or_photo_error(head + tail)

    @BUDGET
    @given(data=st.data())
    def test_a_photo_with_bytes_changed_and_cut(self, encoded, data):
        content = bytearray(data.draw(st.sampled_from(encoded)))
        for _ in range(data.draw(st.integers(1, 8))):
            place = data.draw(st.integers(0, min(len(content) - 1, data.draw(st.sampled_from([40, 400, 40_000])))))
            content[place] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(content))) if data.draw(st.booleans()) else len(content)
        self.pixels_or_photo_error(bytes(content[:cut]))


class TestDecoded:
    """A photo that is decoded once, to be looked at and cut."""

    FINE = tuple(Resize(rule, 64, fine=True) for rule in ("squash", "pad", "crop"))

    @given(data=st.data())
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_cut_is_the_photo_decoded_with_that_crop_to_the_pixel(self, data, encode):
        size = data.draw(st.tuples(st.integers(4, 90), st.integers(4, 90)))
        size = tuple(side * data.draw(st.sampled_from([1, 8, 16])) + data.draw(st.integers(0, 1)) for side in size)
        rng = np.random.default_rng(size)
        image = Image.fromarray(rng.integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), np.uint8)).resize(size)
        exif = Image.Exif()
        exif[0x0112] = data.draw(st.integers(1, 8))
        content = encode(image, data.draw(st.sampled_from(["JPEG", "PNG"])), exif=exif)
        edges = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(lambda e: (*sorted(e[::2]), *sorted(e[1::2])))
        left, right, top, bottom = data.draw(edges)
        box = Box(left, top, right, bottom)
        limits = Limits(20_000_000, 50_000_000, 1000)
        for resize in self.FINE:
            photo = Decoded(content, resize=resize, limits=limits)
            try:
                expected = decode(content, resize=resize, crop=box, limits=limits)
            except PhotoError:
                continue
            np.testing.assert_array_equal(photo.cut(box), expected)
            np.testing.assert_array_equal(photo.cut(Box(0, 0, 1, 1)), decode(content, resize=resize, limits=limits))

    def test_a_large_jpeg_is_decoded_at_twice_the_scale_that_the_whole_needs(self, mosaic, encode, monkeypatch):
        divisors = self.counted(monkeypatch)
        content = encode(mosaic, "JPEG")
        decode(content, resize=SQUASH, limits=LIMITS)
        photo = Decoded(content, resize=Resize("squash", 224, fine=True), limits=LIMITS)
        assert divisors == [4, 2]
        photo.view(300)
        photo.cut(Box(0, 0, 1, 1))
        photo.cut(Box(0.2, 0.2, 0.7, 0.7))
        assert divisors == [4, 2]  # one decode

    def test_a_small_part_of_a_large_jpeg_is_decoded_again_at_full_scale(self, mosaic, encode, monkeypatch):
        divisors = self.counted(monkeypatch)
        photo = Decoded(encode(mosaic, "JPEG"), resize=Resize("squash", 224, fine=True), limits=LIMITS)
        photo.cut(Box(0.4, 0.4, 0.5, 0.5))
        assert divisors == [2, 1]
        photo.cut(Box(0.6, 0.6, 0.7, 0.7))
        assert divisors == [2, 1], "once more, however many small parts are cut"

    @pytest.mark.parametrize(("height", "kept"), [(2500, True), (2501, False)])
    def test_large_pixels_are_not_kept_while_they_wait_for_the_detector(self, encode, monkeypatch, height, kept):
        images = []
        plain = Photo.decode

        def recorded(photo, divisor=1):
            image = plain(photo, divisor)
            images.append(weakref.ref(image))
            return image

        monkeypatch.setattr(Photo, "decode", recorded)
        content = encode(Image.linear_gradient("L").resize((2500, height)), "PNG")
        photo = Decoded(content, resize=Resize("squash", 224, fine=True), limits=LIMITS)
        assert photo.view(30).shape == (30, 30, 3)
        gc.collect()
        assert (images[0]() is not None) is kept
        box = Box(0.2, 0.2, 0.7, 0.7)
        cut = photo.cut(box)
        assert len(images) == (1 if kept else 2)
        np.testing.assert_array_equal(cut, decode(content, resize=SQUASH, crop=box, limits=LIMITS))

    def counted(self, monkeypatch):
        divisors = []
        plain = Photo.decode

        def recorded(photo, divisor=1):
            divisors.append(divisor)
            return plain(photo, divisor)

        monkeypatch.setattr(Photo, "decode", recorded)
        return divisors

    def test_the_detector_sees_all_of_it_squashed(self, scene, encode):
        photo = Decoded(encode(scene, "PNG"), resize=SQUASH, limits=LIMITS)
        assert photo.size == (96, 72)
        expected = Image.fromarray(scene).resize((30, 30), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(photo.view(30), np.asarray(expected))

    def test_what_it_sees_of_a_large_photo_is_nearly_the_same(self, mosaic, encode):
        photo = Decoded(encode(mosaic, "JPEG", quality=95), resize=Resize("squash", 224, fine=True), limits=LIMITS)
        expected = np.asarray(mosaic.resize((300, 300), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(photo.view(300) - expected).mean() < 2.5

    def test_it_is_upright(self, scene, encode):
        exif = Image.Exif()
        exif[0x0112] = 6
        photo = Decoded(encode(scene, "PNG", exif=exif), resize=SQUASH, limits=LIMITS)
        assert photo.size == (72, 96)
        turned = Image.fromarray(np.rot90(scene, -1)).resize((30, 30), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(photo.view(30), np.asarray(turned))

    def test_without_cars_to_find_large_photos_are_decoded_as_small_as_before(self, mosaic, encode, monkeypatch):
        divisors = self.counted(monkeypatch)
        decode(encode(mosaic, "JPEG"), resize=SQUASH, limits=LIMITS)
        assert divisors == [4]
