"""JPEGs whose pixels are all there are read, whatever else is missing; those that lack pixels are refused."""

import io
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from svckit.photos.photo import Limits, Photo, PhotoError, PhotoReason

LIMITS = Limits(max_bytes=20_000_000, max_pixels=25_000_000, max_aspect=10)
"""Those of the server."""
KINDS = [
    {},
    {"optimize": True},
    {"restart_marker_rows": 1},
    {"subsampling": 0, "quality": 95},
    {"progressive": True},
    {"progressive": True, "restart_marker_rows": 1},
]
OF_ONE_SCAN = KINDS[:4]


def read(content):
    return np.asarray(Photo.open(content, LIMITS).decode())


def refusal(content):
    with pytest.raises(PhotoError) as caught:
        read(content)
    return caught.value.reason


@pytest.fixture(scope="module")
def noise():
    """A picture (120, 160, 3) of which every part takes many bytes."""
    return np.random.default_rng(3).integers(0, 256, (120, 160, 3), np.uint8)


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


class TestTheEndIsMissing:
    @pytest.mark.parametrize("missing", [1, 2])
    @pytest.mark.parametrize("options", KINDS)
    @pytest.mark.parametrize("picture", ["scene", "noise"])
    def test_but_no_pixel(self, picture, options, missing, encode, request):
        whole = encode(request.getfixturevalue(picture), "JPEG", **options)
        assert np.array_equal(read(whole[:-missing]), read(whole))

    @pytest.mark.parametrize(
        "filled", [bytes(5000), b"\xff" * 5000, bytes(70_000)], ids=["zeros", "ones", "many zeros"]
    )
    @pytest.mark.parametrize("options", KINDS)
    @pytest.mark.parametrize("picture", ["scene", "noise"])
    def test_but_no_pixel_and_the_file_is_filled_up(self, picture, options, filled, encode, request):
        whole = encode(request.getfixturevalue(picture), "JPEG", **options)
        assert np.array_equal(read(whole[:-2] + filled), read(whole))
        assert np.array_equal(read(whole[:-2] + filled + whole[-2:]), read(whole))

    @pytest.mark.parametrize("options", [each for each in OF_ONE_SCAN if "restart_marker_rows" not in each])
    def test_and_pixels_with_it_and_the_file_is_filled_up(self, options, noise, encode):
        filled = encode(noise, "JPEG", **options)[:-400] + bytes(5000)
        assert refusal(filled) == PhotoReason.IMAGE_TRUNCATED
        assert refusal(filled + b"\xff\xd9") == PhotoReason.IMAGE_CORRUPT

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_of_gray_and_of_ink(self, mode, scene, encode):
        whole = encode(Image.fromarray(scene).convert(mode), "JPEG")
        assert np.array_equal(read(whole[:-2]), read(whole))

    def test_of_a_picture_of_one_colour_whose_codes_are_single_bits(self, encode):
        whole = encode(Image.new("RGB", (300, 200), (120, 40, 90)), "JPEG", optimize=True)
        assert np.array_equal(read(whole[:-2]), read(whole))

    @pytest.mark.parametrize("missing", [3, 4, 5, 10, 40, 1000])
    @pytest.mark.parametrize("options", KINDS)
    def test_and_pixels_with_it(self, options, missing, noise, encode):
        assert refusal(encode(noise, "JPEG", **options)[:-missing]) == PhotoReason.IMAGE_TRUNCATED

    @pytest.mark.parametrize("kept", [1, 3, 9])
    def test_and_whole_scans_with_it(self, kept, noise, encode):
        """What is there decodes, to a picture that is blurred."""
        content = encode(noise, "JPEG", progressive=True)
        scans = [found.start() for found in re.finditer(rb"\xff\xda", content)]
        assert len(scans) == 10
        assert refusal(content[: scans[kept]]) == PhotoReason.IMAGE_TRUNCATED

    def test_but_no_pixel_at_the_scale_that_is_decoded(self, encode):
        whole = encode(Image.linear_gradient("L").resize((1600, 1200)), "JPEG")
        small, expected = (np.asarray(Photo.open(each, LIMITS).decode(8)) for each in (whole[:-2], whole))
        assert np.array_equal(small, expected)


class TestDamage:
    @pytest.mark.parametrize("options", OF_ONE_SCAN)
    @pytest.mark.parametrize("start", [0.3, 0.5])
    def test_zeros_in_the_middle_are_refused(self, options, start, noise, encode):
        content = bytearray(encode(noise, "JPEG", **options))
        place = int(start * len(content))
        content[place : place + 2048] = bytes(2048)
        assert refusal(bytes(content)) in (PhotoReason.IMAGE_CORRUPT, PhotoReason.IMAGE_TRUNCATED)

    @pytest.mark.parametrize("options", KINDS)
    def test_zeros_to_the_end_are_refused(self, options, noise, encode):
        content = encode(noise, "JPEG", **options)
        half = len(content) // 2
        assert refusal(content[:half] + bytes(len(content) - half)) in (
            PhotoReason.IMAGE_TRUNCATED,
            PhotoReason.IMAGE_CORRUPT,
        )

    @pytest.mark.parametrize("options", OF_ONE_SCAN)
    def test_a_piece_that_was_cut_out_is_refused(self, options, noise, encode):
        content = encode(noise, "JPEG", **options)
        third = len(content) // 3
        assert refusal(content[:third] + content[third + 500 :]) == PhotoReason.IMAGE_CORRUPT

    @pytest.mark.parametrize("scan", range(10))
    def test_the_end_of_a_scan_that_is_missing_is_refused(self, scan, noise, encode):
        content = encode(noise, "JPEG", progressive=True)
        parts = re.split(rb"(?=\xff[\xc4\xda\xd9])", content)
        data = [number for number, part in enumerate(parts) if part.startswith(b"\xff\xda")][scan]
        parts[data] = parts[data][:-20]
        assert refusal(b"".join(parts)) == PhotoReason.IMAGE_CORRUPT

    def test_data_of_more_pixels_than_it_has_is_refused(self, noise, encode):
        content = encode(noise, "JPEG")
        height = content.index(struct.pack(">HH", 120, 160))
        assert refusal(content[:height] + struct.pack(">H", 64) + content[height + 2 :]) == PhotoReason.IMAGE_CORRUPT

    def test_data_of_fewer_pixels_than_it_has_is_refused(self, noise, encode):
        content = encode(noise, "JPEG")
        height = content.index(struct.pack(">HH", 120, 160))
        assert refusal(content[:height] + struct.pack(">H", 200) + content[height + 2 :]) == PhotoReason.IMAGE_CORRUPT


class TestWhatNoPixelNeeds:
    @pytest.mark.parametrize("options", KINDS)
    def test_bytes_before_and_after_the_end(self, options, scene, encode):
        content = encode(scene, "JPEG", **options)
        assert np.array_equal(read(content[:-2] + bytes(30) + b"\xff\xff\xff\xd9" + b"trailer" * 9000), read(content))

    @pytest.mark.parametrize(
        "odd",
        [
            segment(0xE0, b"JFIF\0"),
            segment(0xE1, b"Exif\0\0junk"),
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x"),
            segment(0xE2, b"ICC_PROFILE\0\1\1" + b"x" * 60_000) * 40,
            segment(0xE2, b"MPF\0MM\0*junk"),
            segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\xff\xff\xff\xff"),
            segment(0xEE, b"Adobe"),
            segment(0xFE, b"a comment"),
            segment(0xFE, b"a comment") + b"\0\0\0",
        ],
    )
    def test_segments_that_are_odd(self, odd, scene, encode):
        content = encode(scene, "JPEG")
        assert np.array_equal(read(content[:2] + odd + content[2:]), read(content))

    def test_a_thumbnail_that_is_cut_off(self, scene, encode):
        content = encode(scene, "JPEG")
        exif = segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encode(scene[::2, ::2].copy(), "JPEG")[:-200])
        assert np.array_equal(read(content[:2] + exif + content[2:]), read(content))


def tall(width, height, **options):
    """Return a JPEG of noise, of a height that is made of stripes, in little time: each has its restart markers."""
    stripe = np.random.default_rng(1).integers(0, 256, (16, width // 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(stripe).resize((width, 128)).save(file, "JPEG", restart_marker_rows=1, quality=50, **options)
    content = file.getvalue()
    start = content.index(b"\xff\xda") + 14
    size = content.index(struct.pack(">HH", 128, width))
    stripes = b"\xff\xd7".join([content[start:-2]] * (height // 128))
    return content[:size] + struct.pack(">H", height) + content[size + 2 : start] + stripes + b"\xff\xd9"


PHONES = [(8064, 6016), (8192, 6144), (12032, 9088)]  # 48, 50 and 109 megapixels


class TestLargePhotos:
    @pytest.mark.parametrize("size", PHONES)
    def test_of_phones_are_within_the_limits_that_a_server_has(self, size):
        photo = Photo.open(tall(*size), LIMITS)
        assert photo.size == size
        image = photo.decode(min(photo.divisors))
        assert image.width * image.height <= LIMITS.max_pixels

    @pytest.mark.parametrize("size", PHONES)
    def test_take_no_more_memory_than_the_limit_says(self, size, tmp_path):
        """In a process of its own: the most that it ever had is what is measured."""
        file = tmp_path / "photo.jpg"
        file.write_bytes(tall(*size))
        code = (
            "import pathlib, sys; from svckit.photos.photo import Limits, Photo\n"
            "def most(): return int(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
            "content = pathlib.Path(sys.argv[1]).read_bytes()\n"
            "before = most()\n"
            "photo = Photo.open(content, Limits(20_000_000, 25_000_000, 10))\n"
            "photo.decode(min(photo.divisors))\n"
            "print(most() - before)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, file], capture_output=True, text=True, check=True, timeout=60
        )
        assert 4 * size[0] * size[1] // 16 < int(done.stdout) * 1024 < 8 * 25_000_000

    def test_that_are_turned(self, encode):
        """With sides that no divisor divides."""
        exif = Image.Exif()
        exif[0x0112] = 6
        photo = Photo.open(encode(Image.linear_gradient("L").resize((6001, 5003)), "JPEG", exif=exif), LIMITS)
        assert photo.size == (5003, 6001)
        assert photo.divisors == {2, 4, 8}
        rows = np.asarray(photo.decode(2).resize((1, 10), Image.Resampling.BOX))[:, 0, 0].astype(int)
        columns = np.asarray(photo.decode(2).resize((10, 1), Image.Resampling.BOX))[0, :, 0].astype(int)
        assert np.ptp(rows) <= 1
        assert (np.diff(columns) < 0).all()

    @pytest.mark.parametrize(
        ("size", "message"), [((16384, 16384), "the limit is 200000000"), ((65472, 65408), "the limit")]
    )
    def test_too_large_to_be_decoded_even_smaller(self, size, message):
        with pytest.raises(PhotoError, match=message) as caught:
            Photo.open(header(*size), LIMITS)
        assert caught.value.reason == PhotoReason.IMAGE_TOO_MANY_PIXELS

    def test_progressive_ones_count_their_coefficients(self):
        """Three bytes a pixel if colours have half the resolution, six if they have all of it."""
        assert Photo.open(header(12032, 9088, progressive=True), LIMITS).size == (12032, 9088)
        with pytest.raises(PhotoError, match=r"takes as much memory as .* pixels do; the limit is 25000000"):
            Photo.open(header(12032, 9088, progressive=True, subsampling=0), LIMITS)

    def test_scans_count_by_their_pixels(self):
        assert Photo.open(header(8064, 6048, progressive=True, scans=40), LIMITS).size == (8064, 6048)
        with pytest.raises(PhotoError) as caught:
            Photo.open(header(8064, 6048, progressive=True, scans=90), LIMITS)
        assert caught.value.reason == PhotoReason.IMAGE_TOO_COMPLEX

    def test_up_to_25_megapixels_every_pixel_is_there_for_small_parts(self):
        assert min(Photo.open(header(5000, 5000), LIMITS).divisors) == 1
        assert min(Photo.open(header(5000, 5008), LIMITS).divisors) == 2


def header(width, height, scans=0, **options):
    """Return a JPEG that says it is so large, and has data of a small one."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", **options)
    content = file.getvalue()
    size = content.index(struct.pack(">HH", 16, 16))
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:size] + struct.pack(">HH", height, width) + content[size + 4 : -2] + scans * last + b"\xff\xd9"
