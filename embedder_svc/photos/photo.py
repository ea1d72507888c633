"""Encoded photos, from anyone: the header is read, what is out of bounds or damaged is refused, the rest is decoded to upright RGB.

Only the five formats below are opened, each by its own Pillow plugin. Pillow's registry of some forty formats and its global limits
are not used: each parser that nobody needs is one more way in.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Self

import numpy as np
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

# Pillow warns about every odd EXIF tag: thousands of different lines, each remembered for ever, from one hostile photo.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_PLUGINS: Mapping[bytes, type[ImageFile]] = MappingProxyType(
    {
        b"\xff\xd8\xff": JpegImageFile,
        b"\x89PNG\r\n\x1a\n": PngImageFile,
        b"RIFF": WebPImageFile,
        b"BM": BmpImageFile,
        b"GIF87a": GifImageFile,
        b"GIF89a": GifImageFile,
    }
)
"""The plugin of each format, by the bytes that its files begin with."""

_UPRIGHT: Mapping[object, Transpose] = MappingProxyType(
    {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
)
"""The transposition that undoes each EXIF orientation (CIPA DC-008, tag 0x0112); 1 is upright already."""

_SWAPS_SIDES = frozenset({Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90})

# A progressive JPEG of a few KB can ask for thousands of passes over all of its pixels; encoders write about ten.
_MAX_JPEG_SCANS = 100
_JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
# Pillow takes time quadratic in the number of EXIF segments to join them; cameras write one, and one for each embedded preview.
_MAX_EXIF_SEGMENTS = 64
# Pillow's parsers of headers and chunks are Python loops; a 20 MB PNG in chunks of 1 KB takes 80,000 reads.
_MAX_READS = 200_000


class PhotoReason(StrEnum):
    """Why a photo was refused; sent as the reason of its field violation."""

    IMAGE_EMPTY = "IMAGE_EMPTY"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    IMAGE_FORMAT = "IMAGE_FORMAT"
    IMAGE_TRUNCATED = "IMAGE_TRUNCATED"
    IMAGE_CORRUPT = "IMAGE_CORRUPT"
    IMAGE_TOO_COMPLEX = "IMAGE_TOO_COMPLEX"
    IMAGE_TOO_MANY_PIXELS = "IMAGE_TOO_MANY_PIXELS"
    IMAGE_ASPECT_RATIO = "IMAGE_ASPECT_RATIO"
    INVALID_CROP = "INVALID_CROP"


class PhotoError(ValueError):
    """A photo, or the crop asked of it, can't be used. `reason` is for programs, `description` for people."""

    def __init__(self, reason: PhotoReason, description: str) -> None:
        super().__init__(description)
        self.reason = reason
        self.description = description


@dataclass(frozen=True)
class Limits:
    """The largest photo that is accepted."""

    max_bytes: int
    max_pixels: int
    """Width times height, before any crop; read from the header, before anything is decoded."""
    max_aspect: float
    """Longer side over shorter side, of the part that is embedded."""


class Photo:
    """A photo whose header has been read and is within limits, and whose pixels are still to be decoded."""

    def __init__(self, image: ImageFile) -> None:
        self._image = image
        self._transpose = _transpose(image)
        width, height = image.size
        self.size = (height, width) if self._transpose in _SWAPS_SIDES else (width, height)
        """Upright (width, height)."""
        self.divisors = frozenset(divisor for divisor in (2, 4, 8) if self._divides(divisor))
        """The numbers that `decode` can divide the sides by."""

    @classmethod
    def open(cls, content: bytes, limits: Limits) -> Self:
        """Read the header. Raise PhotoError if the photo is out of bounds, damaged, or of no known format."""
        _check_bytes(content, limits)
        with _refusing_damage():
            image = _plugin(content)(_CountedReads(content))
            _check_pixels(image, limits)
            if isinstance(image, PngImageFile):
                image.load()  # a PNG's orientation may come after its pixels
            return cls(image)

    def decode(self, divisor: int = 1) -> Image.Image:
        """Return the upright RGB image, its sides divided, and rounded up, which costs less than decoding all of it.

        Raise PhotoError if the photo is damaged.
        """
        with _refusing_damage():
            if divisor > 1:
                width, height = self._image.size
                self._image.draft(None, (width // divisor, height // divisor))
            self._image.load()
            rgb = _rgb(self._image)
        return rgb if self._transpose is None else rgb.transpose(self._transpose)

    def _divides(self, divisor: int) -> bool:
        # A decoder that divides fills up the last row and column, which must still be the last ones once the photo is upright.
        stays = self._transpose is None or all(side % divisor == 0 for side in self.size)
        return isinstance(self._image, JpegImageFile) and stays


class _CountedReads(io.BytesIO):
    """A file in memory that refuses to be read more than so many times. Raises PhotoError."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise PhotoError(PhotoReason.IMAGE_TOO_COMPLEX, "the file is cut into too many small parts")
        return super().read(size)


@contextmanager
def _refusing_damage() -> Iterator[None]:
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(PhotoReason.IMAGE_TOO_MANY_PIXELS, "the photo has far too many pixels") from error
    except Exception as error:  # on hostile bytes Pillow raises nearly anything
        if isinstance(error, EOFError) or "truncated" in str(error).lower():
            raise PhotoError(PhotoReason.IMAGE_TRUNCATED, "the file ends before the photo does") from error
        raise PhotoError(PhotoReason.IMAGE_CORRUPT, "the file is damaged: it can't be decoded") from error


def _check_bytes(content: bytes, limits: Limits) -> None:
    if not content:
        raise PhotoError(PhotoReason.IMAGE_EMPTY, "there are no bytes")
    if len(content) > limits.max_bytes:
        raise PhotoError(
            PhotoReason.IMAGE_TOO_LARGE, f"the file has {len(content)} bytes, the limit is {limits.max_bytes}"
        )


def _plugin(content: bytes) -> type[ImageFile]:
    plugin = next((plugin for prefix, plugin in _PLUGINS.items() if content.startswith(prefix)), None)
    if plugin is None:
        raise PhotoError(PhotoReason.IMAGE_FORMAT, "the file is no JPEG, PNG, WebP, BMP or GIF")
    if plugin is JpegImageFile and _is_jpeg_bomb(content):
        raise PhotoError(PhotoReason.IMAGE_TOO_COMPLEX, "the JPEG has too many scans or EXIF segments")
    return plugin


def _is_jpeg_bomb(content: bytes) -> bool:
    return content.count(b"Exif\0\0") > _MAX_EXIF_SEGMENTS or len(_JPEG_SCAN.findall(content)) > _MAX_JPEG_SCANS


def _check_pixels(image: ImageFile, limits: Limits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise PhotoError(PhotoReason.IMAGE_CORRUPT, f"the photo's size is {width} x {height}")
    if width * height > limits.max_pixels:
        raise PhotoError(
            PhotoReason.IMAGE_TOO_MANY_PIXELS,
            f"the photo has {width} x {height} = {width * height} pixels, the limit is {limits.max_pixels}",
        )


def _transpose(image: ImageFile) -> Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # noqa: BLE001 (a good photo is not refused for its broken metadata)
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":
        image = _eight_bit(image)
    if image.has_transparency_data:
        return _over_white(_in_mode(image, "RGBA"))
    return _in_mode(image, "RGB")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in that mode; the image itself, not a copy, if it is in it already: photos are large."""
    return image if image.mode == mode else image.convert(mode)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return the high bytes of 16-bit gray, as Pillow does for 16-bit RGB; its `convert` would clip values at 255."""
    values = np.asarray(image)
    gray = (values >> 8).astype(np.uint8)
    gray[values == image.info.get("transparency", -1)] = 255  # the transparent value, over white
    return Image.fromarray(gray)


def _over_white(image: Image.Image) -> Image.Image:
    background = Image.new("RGB", image.size, "white")
    background.paste(image, mask=image)
    return background
