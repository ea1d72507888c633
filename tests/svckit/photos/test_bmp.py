"""BMPs whose masks say where the colours lie: whatever the masks are, the pixels are the same."""

import struct

import numpy as np
import pytest

from svckit.photos.photo import Limits, Photo, PhotoError, PhotoReason

LIMITS = Limits(max_bytes=20_000_000, max_pixels=1_000_000, max_aspect=10)
RGBA = (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
TEN_BITS = (0x3FF00000, 0xFFC00, 0x3FF, 0)
FOUR_BITS = (0xF00, 0xF0, 0xF, 0xF000)
FIVE_BITS = (0x7C00, 0x3E0, 0x1F, 0x8000)


def read(content):
    return np.asarray(Photo.open(content, LIMITS).decode())


def bmp(picture, masks, bits, *, alpha=255, size=124, kind=3, width=None):
    """Return a BMP of a picture (height, width, 3), its rows from below."""
    pixels = np.zeros(picture.shape[:2], np.uint32)
    for number, mask in enumerate(masks):
        values = picture[::-1, :, number].astype(np.uint64) if number < 3 else np.uint64(alpha)
        shift, most = (mask & -mask).bit_length() - 1, mask // (mask & -mask or 1)
        pixels |= ((values * most + 127) // 255 << max(0, shift)).astype(np.uint32) if mask else np.uint32(0)
    rows = pixels.astype(f"<u{bits // 8}")
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] * bits // 8 % 4 // 2))).tobytes()
    masks = struct.pack("<4I", *masks)
    header = struct.pack("<iiHHIIiiII", width or picture.shape[1], len(picture), 1, bits, kind, len(rows), 0, 0, 0, 0)
    header += masks[: 16 if kind == 6 else 12] if size == 40 else masks.ljust(size - 40, b"\0")
    start = struct.pack("<IHHI", 18 + len(header) + len(rows), 0, 0, 18 + len(header))
    return b"BM" + start + struct.pack("<I", size) + header + rows


@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize(
    ("masks", "bits", "steps"),
    [
        (RGBA, 32, 255),
        ((*RGBA[:3], 0), 32, 255),
        ((0xFF0000, 0xFF00, 0xFF, 0x7F000000), 32, 255),
        (TEN_BITS, 32, 255),
        (FOUR_BITS, 16, 15),
        (FIVE_BITS, 16, 31),
        ((0xF800, 0x7E0, 0x1F, 0), 16, 31),
        ((0x1F, 0x7E0, 0xF800, 0), 16, 31),
    ],
)
def test_any_masks_are_read(masks, bits, steps, odd, scene):
    """A value is rounded to one of the steps, and down from there."""
    picture = scene[:, : 90 + odd]
    assert np.abs(read(bmp(picture, masks, bits)).astype(int) - picture).max() < 255 / steps / 2 + 1


@pytest.mark.parametrize("size", [40, 56, 108])
@pytest.mark.parametrize("kind", [3, 6])
def test_whatever_header_has_them(kind, size, scene):
    assert np.array_equal(read(bmp(scene, RGBA, 32, size=size, kind=kind)), scene)


def test_an_alpha_channel_that_nobody_filled_in_is_none(scene):
    assert np.array_equal(read(bmp(scene, RGBA, 32, alpha=0)), scene)


@pytest.mark.parametrize(("missing", "is_there"), [(2, True), (3, False)])
def test_the_last_row_may_lack_what_fills_it_up_and_no_pixel(missing, is_there, scene):
    content = bmp(scene[:, :91], FOUR_BITS, 16)
    if is_there:
        assert np.array_equal(read(content[:-missing]), read(content))
    else:
        assert refusal(content[:-missing]) == PhotoReason.IMAGE_TRUNCATED


def test_a_pixel_of_which_a_byte_is_missing_is_missing(scene):
    assert refusal(bmp(scene, TEN_BITS, 32)[:-1]) == PhotoReason.IMAGE_TRUNCATED


def test_masks_with_gaps_are_refused(scene):
    assert refusal(bmp(scene, RGBA, 32).replace(struct.pack("<I", 0xFF00), struct.pack("<I", 0x5500), 1)) == (
        PhotoReason.IMAGE_CORRUPT
    )


@pytest.mark.parametrize("width", [1_000_000, 2**31 - 1])
def test_a_width_that_is_not_there_costs_nothing(width, scene):
    assert refusal(bmp(scene, RGBA, 32, width=width)) == PhotoReason.IMAGE_TOO_MANY_PIXELS


def refusal(content):
    with pytest.raises(PhotoError) as caught:
        read(content)
    return caught.value.reason
