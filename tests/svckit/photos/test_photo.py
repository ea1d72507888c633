import gc
import io
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.Image import Transpose

from svckit.photos.photo import Limits, Photo, PhotoError, PhotoReason

# Pillow's warnings of odd metadata; photo.py silences them for good, pytest wakes them for every test.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

LIMITS = Limits(max_bytes=8_000_000, max_pixels=1_000_000, max_aspect=10)
PNG = b"\x89PNG\r\n\x1a\n"


def read(content, limits=LIMITS):
    return np.asarray(Photo.open(content, limits).decode())


def refusal(content, limits=LIMITS):
    with pytest.raises(PhotoError) as caught:
        read(content, limits)
    return caught.value.reason


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *extra):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


class TestFormats:
    @pytest.mark.parametrize(
        ("form", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("PNG", {"compress_level": 0})]
    )
    def test_lossless_formats_give_the_pixels_that_went_in(self, scene, encode, form, options):
        assert np.array_equal(read(encode(scene, form, **options)), scene)

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
    def test_jpeg_is_decoded_as_pillow_does(self, scene, encode, options):
        content = encode(scene, "JPEG", quality=90, **options)
        assert np.array_equal(read(content), np.asarray(Image.open(io.BytesIO(content))))
        assert np.abs(read(content).astype(int) - scene).mean() < 3

    def test_gray_jpeg_becomes_gray_rgb(self, scene, encode):
        pixels = read(encode(scene[..., 0], "JPEG"))
        assert pixels.shape == scene.shape
        assert (pixels[..., 0] == pixels[..., 1]).all()
        assert (pixels[..., 0] == pixels[..., 2]).all()

    def test_a_camera_s_jpeg_with_more_pictures_behind_gives_the_first(self, scene, encode):
        content = encode(scene, "MPO", save_all=True, append_images=[Image.fromarray(scene[::-1].copy())])
        assert np.abs(read(content).astype(int) - scene).mean() < 3

    def test_cmyk_jpeg_is_not_inverted(self, encode):
        cyan = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
        assert np.abs(read(encode(cyan, "JPEG")).astype(int) - (0, 255, 255)).max() <= 3

    def test_ycck_jpeg_is_not_inverted(self, encode):
        ink = (230, 60, 20, 10)  # cyan, magenta, yellow, black
        luma, blue, red = Image.new("RGB", (1, 1), ink[:3]).convert("YCbCr").getpixel((0, 0))
        # Pillow writes CMYK inverted, as Adobe does, and says "not transformed" in the last byte of Adobe's segment.
        stored = encode(Image.new("CMYK", (32, 32), (255 - luma, 255 - blue, 255 - red, ink[3])), "JPEG", quality=100)
        end_of_adobe = stored.index(b"Adobe") + 11
        content = stored[:end_of_adobe] + b"\x02" + stored[end_of_adobe + 1 :]
        expected = Image.new("CMYK", (1, 1), ink).convert("RGB").getpixel((0, 0))
        assert np.abs(read(content).astype(int) - expected).max() <= 4

    def test_gif_gives_its_first_frame(self, encode):
        frames = [Image.new("P", (8, 6), i) for i in (1, 2)]
        for frame in frames:
            frame.putpalette([0, 0, 0, 250, 10, 20, 0, 0, 255])
        content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert (read(content) == (250, 10, 20)).all()

    @pytest.mark.parametrize("form", ["WEBP", "PNG"])
    def test_an_animation_gives_its_first_frame(self, encode, form):
        first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
        content = encode(first, form, save_all=True, append_images=[second], lossless=True)
        assert (read(content) == (255, 0, 0)).all()

    def test_black_and_white_png(self, encode):
        bits = np.eye(9, dtype=bool)
        assert np.array_equal(read(encode(bits, "PNG"))[..., 1], 255 * bits)


class TestTransparency:
    def test_is_shown_over_white(self, encode):
        clear, half, solid = (10, 20, 30, 0), (100, 0, 0, 128), (1, 2, 3, 255)
        pixels = read(encode(np.array([[clear, half, solid]], np.uint8), "PNG"))
        assert pixels[0].tolist() == [[255, 255, 255], [177, 127, 127], [1, 2, 3]]

    def test_of_gray(self, encode):
        image = Image.fromarray(np.array([[[100, 0], [50, 255]]], np.uint8), "LA")
        assert read(encode(image, "PNG")).tolist() == [[[255] * 3, [50] * 3]]

    @pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
    @pytest.mark.parametrize("form", ["PNG", "GIF"])
    def test_of_a_palette(self, encode, form, transparency):
        image = Image.new("P", (3, 1))
        image.putpalette([9, 9, 9, 0, 255, 0, 7, 7, 7])
        image.putdata([0, 1, 2])
        if form == "GIF":
            transparency = 1
        assert read(encode(image, form, transparency=transparency))[0].tolist() == [[9] * 3, [255] * 3, [7] * 3]

    def test_of_one_colour(self, encode):
        image = Image.new("RGB", (2, 1), (1, 2, 3))
        image.putpixel((1, 0), (9, 9, 9))
        assert read(encode(image, "PNG", transparency=(9, 9, 9)))[0].tolist() == [[1, 2, 3], [255] * 3]

    def test_of_webp(self, encode):
        image = Image.new("RGBA", (4, 4), (1, 2, 3, 0))
        image.putpixel((0, 0), (1, 2, 3, 255))
        pixels = read(encode(image, "WEBP", lossless=True))
        assert pixels[0, 0].tolist() == [1, 2, 3]
        assert (pixels[1:] == 255).all()


class TestSixteenBits:
    def test_gray_is_scaled_not_clipped(self):
        row = struct.pack(">4H", 0, 255, 0x8000, 0xFFFF)
        assert read(png(4, 1, 16, 0, b"\0" + row))[0, :, 0].tolist() == [0, 0, 128, 255]

    def test_transparent_gray_is_white(self):
        row = struct.pack(">3H", 0, 300, 301)
        pixels = read(png(3, 1, 16, 0, b"\0" + row, chunk(b"tRNS", struct.pack(">H", 300))))
        assert pixels[0, :, 0].tolist() == [0, 255, 1]

    def test_rgb_is_scaled(self):
        row = struct.pack(">6H", 0, 0x7FFF, 0xFFFF, 0x0100, 0x8000, 0x00FF)
        assert read(png(2, 1, 16, 2, b"\0" + row))[0].tolist() == [[0, 127, 255], [1, 128, 0]]

    def test_gray_and_rgb_scale_alike(self):
        values = range(0, 65536, 257)
        gray = png(256, 1, 16, 0, b"\0" + struct.pack(">256H", *values))
        rgb = png(256, 1, 16, 2, b"\0" + b"".join(struct.pack(">3H", v, v, v) for v in values))
        assert np.array_equal(read(gray), read(rgb))


class TestOrientation:
    STORED = (None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270")  # fmt: skip

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        ("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95})]
    )
    def test_photos_come_out_upright(self, scene, encode, form, options, orientation):
        stored = Image.fromarray(scene)
        if name := self.STORED[orientation]:
            stored = stored.transpose(Transpose[name])
        exif = Image.Exif()
        exif[0x0112] = orientation
        photo = Photo.open(encode(stored, form, exif=exif, **options), LIMITS)
        assert photo.size == (96, 72)
        difference = np.asarray(photo.decode()).astype(int) - scene
        assert np.abs(difference).mean() < (3 if form == "JPEG" else 1e-9)

    def test_a_png_may_say_it_after_its_pixels(self, scene, encode):
        exif = Image.Exif()
        exif[0x0112] = 3
        content = encode(scene[::-1, ::-1].copy(), "PNG")
        end = content.index(b"IEND") - 4
        late = content[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + content[end:]
        assert np.array_equal(read(late), scene)

    @pytest.mark.parametrize("exif", [b"", b"II", b"junk" * 9, b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 20])
    def test_broken_exif_is_ignored(self, scene, encode, exif):
        content = encode(scene, "JPEG")
        broken = content[:2] + segment(0xE1, b"Exif\0\0" + exif) + content[2:]
        assert np.array_equal(read(broken), read(content))


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", PhotoReason.IMAGE_EMPTY),
            (b"\xff", PhotoReason.IMAGE_FORMAT),
            (b"a photo of a car", PhotoReason.IMAGE_FORMAT),
            (b"PK\x03\x04" + b"\0" * 100, PhotoReason.IMAGE_FORMAT),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100, PhotoReason.IMAGE_CORRUPT),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", PhotoReason.IMAGE_FORMAT),
            (b"\xff\xd8\xff", PhotoReason.IMAGE_TRUNCATED),
            (PNG, PhotoReason.IMAGE_CORRUPT),
            (b"RIFF\x04\0\0\0WAVE", PhotoReason.IMAGE_FORMAT),
            (b"BM", PhotoReason.IMAGE_FORMAT),
            (b"GIF89a", PhotoReason.IMAGE_CORRUPT),
        ],
    )
    def test_of_what_is_no_photo(self, content, reason):
        assert refusal(content) == reason

    @pytest.mark.parametrize("form", ["TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000"])
    def test_of_every_other_format_pillow_knows(self, scene, encode, form):
        assert refusal(encode(scene, form)) == PhotoReason.IMAGE_FORMAT

    @pytest.mark.parametrize(
        ("form", "options"),
        [
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("PNG", {}),
            ("BMP", {}),
            ("GIF", {}),
            ("WEBP", {}),
            ("HEIF", {}),
            ("AVIF", {}),
        ],
    )
    @pytest.mark.parametrize("kept", [0.5, 0.9])
    def test_of_truncated_files(self, encode, form, options, kept):
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        content = encode(noise, form, **options)
        reason = refusal(content[: int(kept * len(content))])
        assert reason == PhotoReason.IMAGE_TRUNCATED

    def test_of_damaged_files(self, scene, encode):
        content = bytearray(encode(scene, "PNG"))
        content[content.index(b"IDAT") + 20] ^= 0xFF
        assert refusal(bytes(content)) == PhotoReason.IMAGE_CORRUPT

    def test_of_too_many_bytes(self, scene, encode):
        content = encode(scene, "PNG")
        assert read(content, Limits(len(content), 10**6, 10)).shape == scene.shape
        assert refusal(content, Limits(len(content) - 1, 10**6, 10)) == PhotoReason.IMAGE_TOO_LARGE

    @pytest.mark.parametrize(("form", "options"), [("JPEG", {}), ("PNG", {}), ("BMP", {}), ("GIF", {}), ("WEBP", {})])
    def test_of_too_many_pixels(self, scene, encode, form, options):
        content = encode(scene, form, **options)
        assert read(content, Limits(10**6, 96 * 72, 10)).shape == scene.shape
        assert refusal(content, Limits(10**6, 96 * 72 - 1, 10)) == PhotoReason.IMAGE_TOO_MANY_PIXELS

    @pytest.mark.parametrize("side", [10_001, 65_000, 2**31 - 1])
    def test_of_bombs_by_their_header_alone(self, side):
        """Were anything decoded, the missing rows would be found first."""
        assert refusal(png(side, side, 8, 2, b"\0")) == PhotoReason.IMAGE_TOO_MANY_PIXELS

    def test_of_webp_bombs_by_their_header_alone(self, scene, encode):
        inner = encode(scene, "WEBP", lossless=True)[12:]
        canvas = b"\0" * 4 + 2 * struct.pack("<I", 60_000 - 1)[:3]
        body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas + inner
        assert refusal(b"RIFF" + struct.pack("<I", len(body)) + body) == PhotoReason.IMAGE_TOO_MANY_PIXELS

    def test_descriptions_say_what_would_be_right(self, scene, encode):
        with pytest.raises(PhotoError, match=r"^the photo has 96 x 72 = 6912 pixels, the limit is 5000$"):
            read(encode(scene, "PNG"), Limits(10**6, 5000, 10))


class TestHostileFilesCostLittle:
    """Each of these takes Pillow seconds to minutes, or would log thousands of lines."""

    @pytest.fixture(autouse=True)
    def _in_time(self):
        gc.freeze()  # collecting what other tests have left takes seconds
        started = time.thread_time()
        yield
        took = time.thread_time() - started
        gc.unfreeze()
        assert took < 1.5

    def test_thousands_of_scans(self, encode):
        content = encode(Image.new("L", (1000, 1000), 128), "JPEG", progressive=True)
        scan = content[content.rindex(b"\xff\xda") : -2]
        assert refusal(content[:-2] + 5000 * scan + content[-2:]) == PhotoReason.IMAGE_TOO_COMPLEX

    def test_a_hundred_thousand_exif_segments(self):
        content = b"\xff\xd8" + 200_000 * segment(0xE1, b"Exif\0\0" + b"x" * 4)
        assert refusal(content) == PhotoReason.IMAGE_TOO_COMPLEX

    def test_thousands_of_exif_segments_of_a_good_photo(self, scene, encode):
        content = encode(scene, "JPEG")
        odd = content[:2] + 10_000 * segment(0xE1, b"Exif\0\0" + b"x" * 200) + content[2:]
        assert np.array_equal(read(odd), read(content))

    @pytest.mark.parametrize("name", [b"abCd", b"IDAT"])
    def test_hundreds_of_thousands_of_chunks(self, name):
        content = png(1, 1, 8, 2, b"\0abc", 300_000 * chunk(name))
        assert refusal(content) == PhotoReason.IMAGE_TOO_COMPLEX

    def test_junk_between_segments(self):
        assert refusal(b"\xff\xd8\xff" + 3_000_000 * b"\0") == PhotoReason.IMAGE_TRUNCATED

    def test_compressed_text(self):
        text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * (2**20 - 10)))
        assert read(png(1, 1, 8, 2, b"\0abc", 100 * text)).tolist() == [[[*b"abc"]]]

    def test_thousands_of_bad_exif_tags(self, scene, encode):
        assert read(with_bad_tags(encode(scene, "JPEG"))).shape == scene.shape


def with_bad_tags(jpeg):
    tags = b"".join(struct.pack(">HHII", 0x1000 + i, 1, 60_000, 8) for i in range(4000))
    return jpeg[:2] + segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 4000) + tags) + jpeg[2:]


def test_a_process_does_not_print_pillow_s_warnings(scene, encode, tmp_path):
    """Runs in a process of its own, because pytest changes what becomes of warnings."""
    file = tmp_path / "photo.jpg"
    file.write_bytes(with_bad_tags(encode(scene, "JPEG")))
    code = (
        "import pathlib, sys; from svckit.photos.photo import Limits, Photo\n"
        "print(Photo.open(pathlib.Path(sys.argv[1]).read_bytes(), Limits(10**6, 10**6, 10)).decode().size)"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("(96, 72)\n", "")


def test_pillow_s_globals_are_left_alone(scene, encode):
    def settings():
        return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK

    before = settings()
    read(encode(scene, "JPEG"))
    refusal(encode(scene, "JPEG")[:500])
    assert settings() == before
