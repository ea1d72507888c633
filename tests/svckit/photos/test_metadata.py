"""Metadata refuses no photo, of whatever format: what cannot change a pixel is not read."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from svckit.photos.photo import Limits, Photo, PhotoError, PhotoReason

LIMITS = Limits(max_bytes=20_000_000, max_pixels=1_000_000, max_aspect=10)


def read(content):
    return np.asarray(Photo.open(content, LIMITS).decode())


def chunk(kind, data=b"", crc=None):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc or zlib.crc32(kind + data))


def riff(kind, data):
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) & 1)


class TestPng:
    @pytest.mark.parametrize(
        "odd",
        [
            chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000))),
            chunk(b"iCCP", b"profile\0\7junk"),
            chunk(b"iCCP", b"profile"),
            chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3_000_000)),
            chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 3_000_000)),
            chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
            chunk(b"tEXt", b"Comment\0x", crc=1),
            chunk(b"eXIf", b"MM\0*" + b"x" * 30),
            chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\3\0\0\0\0\0\0", crc=1),
            chunk(b"tRNS", b"\0"),
            chunk(b"tRNS", b"\0" * 6, crc=1),
            chunk(b"tRNS", b"\0" * 600),
            chunk(b"gAMA", b"\0"),
            chunk(b"cHRM", b"\0"),
            chunk(b"pHYs", b""),
            chunk(b"sRGB", b""),
            chunk(b"acTL", struct.pack(">II", 0, 0)),
            chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", b"\0" * 3),
        ],
        ids=lambda odd: odd[4:8].decode(),
    )
    @pytest.mark.parametrize("after", [False, True], ids=["before the pixels", "behind them"])
    def test_whatever_is_in_it(self, odd, after, scene, encode):
        content = encode(scene, "PNG")
        place = content.index(b"IEND" if after else b"IDAT") - 4
        assert np.array_equal(read(content[:place] + odd + content[place:]), scene)

    @pytest.mark.parametrize("missing", range(1, 21))
    def test_whose_end_is_missing_and_no_pixel(self, missing, scene, encode):
        """The last chunk (12 bytes), and the checksums of the one before."""
        assert np.array_equal(read(encode(scene, "PNG")[:-missing]), scene)


class TestWebP:
    def test_whose_metadata_is_cut_off(self, scene, encode):
        content = encode(scene, "WEBP", lossless=True, xmp=b"x" * 5000, icc_profile=b"y" * 3000)
        assert np.array_equal(read(content[:-2000]), scene)

    def test_whose_exif_is_cut_off(self, scene, encode):
        exif = Image.Exif()
        exif[0x010E] = "x" * 5000
        assert np.array_equal(read(encode(scene, "WEBP", lossless=True, exif=exif)[:-2000]), scene)

    def test_whose_exif_still_turns_it(self, scene, encode):
        exif = Image.Exif()
        exif[0x0112] = 3
        content = encode(scene[::-1, ::-1].copy(), "WEBP", lossless=True, exif=exif, xmp=b"x" * 5000)
        assert np.array_equal(read(content[:-2000]), scene)

    def test_with_junk_behind_the_picture(self, scene, encode):
        content = encode(scene, "WEBP", lossless=True)
        assert np.array_equal(read(content + riff(b"junk", b"x" * 999) + b"trailer"), scene)

    def test_of_too_many_chunks(self, scene, encode):
        content = encode(scene, "WEBP", lossless=True)
        with pytest.raises(PhotoError) as caught:
            read(content[:12] + 100_000 * riff(b"junk", b"") + content[12:])
        assert caught.value.reason == PhotoReason.IMAGE_TOO_COMPLEX


@pytest.mark.parametrize("form", ["WEBP", "GIF", "PNG"])
def test_of_an_animation_only_the_first_picture_has_to_be_there(form, encode):
    first = Image.linear_gradient("L").resize((64, 48)).convert("P")
    others = [Image.effect_noise((64, 48), 90).convert("P") for _ in range(3)]
    options = {"lossless": True} if form == "WEBP" else {}
    content = encode(first, form, save_all=True, append_images=others, **options)
    assert np.array_equal(read(content[:-1500]), read(content))


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_bmp_may_lack_the_bytes_that_fill_up_its_last_row(missing, scene, encode):
    picture = scene[:, :91].copy()  # 273 bytes a row, and 3 to fill it up
    assert np.array_equal(read(encode(picture, "BMP")[:-missing]), picture)


def test_a_bmp_may_not_lack_a_pixel(scene, encode):
    with pytest.raises(PhotoError) as caught:
        read(encode(scene[:, :91].copy(), "BMP")[:-4])
    assert caught.value.reason == PhotoReason.IMAGE_TRUNCATED


class TestAnAlphaChannelThatIsZeroEverywhere:
    """Nobody filled it in: it is no alpha channel. Anything else would be nothing but white."""

    @staticmethod
    def clear(scene):
        return np.dstack([scene, np.zeros(scene.shape[:2], np.uint8)])

    @pytest.mark.parametrize(
        ("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("BMP", {})]
    )
    def test_is_none(self, form, options, scene, encode):
        assert np.array_equal(read(encode(self.clear(scene), form, **options)), scene)

    @pytest.mark.parametrize("masks", [(0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xFF0000, 0xFF00, 0xFF, 0)])
    def test_of_bmps_of_the_clipboard(self, masks, scene):
        """A header of version 5, and 32 bits a pixel."""
        rows = self.clear(scene)[::-1, :, [2, 1, 0, 3]].tobytes()
        height, width, _ = scene.shape
        header = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, len(rows), 0, 0, 0, 0)
        header += struct.pack("<4I", *masks) + b"BGRs" + bytes(124 - 40 - 20)
        content = b"BM" + struct.pack("<IHHI", 14 + len(header) + len(rows), 0, 0, 14 + len(header)) + header + rows
        assert np.array_equal(read(content), scene)

    def test_of_gray_and_alpha(self, scene, encode):
        gray = np.dstack([scene[..., 0], np.zeros(scene.shape[:2], np.uint8)])
        assert np.array_equal(read(encode(Image.fromarray(gray, "LA"), "PNG"))[..., 1], scene[..., 0])

    def test_of_a_palette_all_of_which_is_transparent(self, encode):
        image = Image.new("P", (4, 3), 1)
        image.putpalette([0, 0, 0, 250, 10, 20])
        assert (read(encode(image, "GIF", transparency=1)) == (250, 10, 20)).all()

    def test_of_sixteen_bits(self):
        rows = (b"\0" + struct.pack(">4H", *[0x8000] * 4)) * 2
        header = struct.pack(">IIBBBBB", 4, 2, 16, 0, 0, 0, 0)
        transparent = chunk(b"tRNS", struct.pack(">H", 0x8000))
        content = chunk(b"IHDR", header) + transparent + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")
        assert (read(b"\x89PNG\r\n\x1a\n" + content) == 128).all()

    def test_but_one_that_is_not_is_heeded(self, scene, encode):
        pixels = self.clear(scene)
        pixels[0, 0, 3] = 255
        shown = read(encode(pixels, "PNG"))
        assert shown[0, 0].tolist() == scene[0, 0].tolist()
        assert (shown[1:] == 255).all()
