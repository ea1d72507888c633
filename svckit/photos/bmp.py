"""BMPs: a header may say by masks which bits of a pixel are red, green, blue and alpha, and Pillow knows some of them alone.

A BMP with other masks is brought into the usual order before Pillow reads it. Its pixels are not compressed, so that this costs no
more than the file is large. (Microsoft, BITMAPV5HEADER.)
"""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile

_BITFIELDS = frozenset({3, 6})
"""The kinds of compression that are none: with three masks, or four, behind a header that has no place for them."""
_USUAL = (0xFF0000, 0xFF00, 0xFF)
_ALPHA = 0xFF000000
_KNOWN = {
    16: frozenset({(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)}),
    32: frozenset({(*_USUAL, 0), (*_USUAL, _ALPHA), (0, 0, 0, 0)}),
}
"""Masks that are left to Pillow, by the bits of a pixel; of 16 bits it reads no alpha."""
_MASKS = 54
"""The place of the masks, in the header or behind it."""
_NEEDED = _MASKS + 16
_WITH_ALPHA = 56
"""The size of the first header that has a mask for alpha."""


class Bmp(BmpImageFile):
    """A BMP."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(_usual(content)))


def _usual(content: bytes) -> bytes:
    """Return a BMP with the same pixels whose masks Pillow knows; the file itself if it has no others, or none that make sense."""
    if len(content) < _NEEDED:
        return content
    offset, size, width, height, _, bits, kind = struct.unpack_from("<IIiiHHI", content, 10)
    masks = struct.unpack_from("<4I", content, _MASKS)
    if kind != 6 and size < _WITH_ALPHA:
        masks = (*masks[:3], 0)
    if kind not in _BITFIELDS or bits not in _KNOWN or width < 1 or not all(map(_is_run, masks)):
        return content
    if kind == 3 and (masks[:3] if bits == 16 else masks) in _KNOWN[bits]:
        return content
    rows = _rows(content[offset:], width, bits // 8)
    red, green, blue, alpha = (_channel(rows, mask) for mask in masks)
    pixels = np.dstack([blue, green, red, alpha]).tobytes()
    start = struct.pack("<2sIHHI", b"BM", 14 + 124 + len(pixels), 0, 0, 14 + 124)
    header = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<4I", *_USUAL, _ALPHA if masks[3] else 0)
    return start + header.ljust(124, b"\0") + pixels


def _rows(pixels: bytes, width: int, pixel_bytes: int) -> NDArray[np.uint32]:
    """Return the pixels of all rows that are there whole: (rows, width). The last may lack what fills it up."""
    filling = -width * pixel_bytes % 4
    stride = width * pixel_bytes + filling
    count = (len(pixels) + filling) // stride
    whole = pixels[: count * stride].ljust(count * stride, b"\0")
    rows = np.frombuffer(whole, f"<u{pixel_bytes}").reshape(count, stride // pixel_bytes)
    return rows[:, :width].astype(np.uint32)


def _channel(rows: NDArray[np.uint32], mask: int) -> NDArray[np.uint8]:
    """Return what a mask says of each pixel, as 0 to 255."""
    bits = mask.bit_count()
    if bits == 0:
        return np.zeros(rows.shape, np.uint8)
    values = (rows & np.uint32(mask)) >> np.uint32((mask & -mask).bit_length() - 1)
    if bits > 8:
        return (values >> np.uint32(bits - 8)).astype(np.uint8)
    return (values * np.uint32(255) // np.uint32((1 << bits) - 1)).astype(np.uint8)


def _is_run(mask: int) -> bool:
    """Return whether the bits of a mask lie beside each other."""
    return (mask // (mask & -mask or 1) + 1).bit_count() <= 1
