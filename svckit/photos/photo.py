"""Encoded photos, from anyone: the header is read, what is out of bounds or damaged is refused, the rest is decoded to upright RGB.

The rule: a photo whose pixels are all there is accepted, one that lacks pixels is refused, and metadata refuses no photo.

Only the formats of `kinds` are opened, each by its own Pillow plugin. Pillow's registry of some forty formats and its global limits
are not used: each parser that nobody needs is one more way in.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
from PIL import ExifTags, Image
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile

from svckit.photos import apart, iso_media
from svckit.photos.bmp import Bmp
from svckit.photos.jpeg import Jpeg
from svckit.photos.kinds import READ, Format, described, format_of
from svckit.photos.png import Png
from svckit.photos.refusals import PhotoError, PhotoReason, corrupt, too_complex, truncated
from svckit.photos.webp import WebP

__all__ = ["Limits", "Photo", "PhotoError", "PhotoReason"]

# Pillow warns about every odd EXIF tag: thousands of different lines, each remembered for ever, from one hostile photo.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

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

# Pillow's parser of GIFs is a Python loop.
_MAX_READS = 200_000

_AFFORDABLE = 25_000_000
"""A JPEG of more pixels than this is decoded at a half, a quarter or an eighth of its size, whatever of it is wanted."""
_JPEG_PIXELS = 8
"""A JPEG may have so many times the pixels of other photos, because it is decoded smaller."""
_BYTES_A_PIXEL = 19
"""The memory that decoding takes at most, for a pixel of the dearest format (WebP)."""
_JPEG_BYTES_A_PIXEL = 12
"""The memory for a decoded pixel of a JPEG at most: if it is CMYK and turned."""


@dataclass(frozen=True)
class Limits:
    """The largest photo that is accepted."""

    max_bytes: int
    max_pixels: int
    """Width times height, before any crop; read from the header, before anything is decoded. A JPEG may have eight times as many,
    if decoding it smaller takes no more memory."""
    max_aspect: float
    """Longer side over shorter side, of the part that is embedded."""


class Photo:
    """A photo whose header has been read and is within limits, and whose pixels are still to be decoded."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self._transpose = _transpose(image)
        width, height = image.size
        self.size = (height, width) if self._transpose in _SWAPS_SIDES else (width, height)
        """Upright (width, height)."""
        self.divisors = frozenset(divisor for divisor in (1, 2, 4, 8) if self._divides(divisor))
        """The numbers that `decode` can divide the sides by. 1 is missing if the photo is too large for that."""

    @classmethod
    def open(cls, content: bytes, limits: Limits) -> Self:
        """Read the header. Raise PhotoError if the photo is out of bounds, damaged, or of no known format."""
        _check_bytes(content, limits)
        form = _format(content)
        if form in _APART:
            cpu_s = apart.CPU_S * max(1.0, limits.max_pixels / _AFFORDABLE)
            return cls(apart.decode(form, content, limits.max_pixels, cpu_s))
        return cls.open_here(form, content, limits.max_pixels)

    @classmethod
    def open_here(cls, form: Format, content: bytes, max_pixels: int) -> Self:
        """Read the header of a photo of this format in this process. Raise PhotoError."""
        with _refusing_damage():
            image = _OPENERS[form](content)
            _check_pixels(image, max_pixels)
            if form is Format.PNG:
                image.load()  # a PNG's orientation may come after its pixels
            return cls(image)

    def decode(self, divisor: int = 1) -> Image.Image:
        """Return the upright RGB image, its sides divided, and rounded up, which costs less than decoding all of it.

        Raise PhotoError if the photo is damaged.
        """
        with _refusing_damage():
            if divisor > 1 and isinstance(self._image, Jpeg):
                width, height = self._image.size
                self._image.draft(None, (width // divisor, height // divisor))
            self._image.load()
            rgb = _rgb(self._image)
        return rgb if self._transpose is None else rgb.transpose(self._transpose)

    def _divides(self, divisor: int) -> bool:
        if not isinstance(self._image, Jpeg):
            return divisor == 1
        if self.size[0] * self.size[1] > _AFFORDABLE:
            return self.size[0] * self.size[1] <= _AFFORDABLE * divisor * divisor
        # A decoder that divides fills up the last row and column, which must still be the last ones once the photo is upright.
        # (In photos larger than that, one row of thousands at the wrong end is let pass.)
        return self._transpose is None or all(side % divisor == 0 for side in self.size)


class _CountedReads(io.BytesIO):
    """A file in memory that refuses to be read more than so many times. Raises PhotoError."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise too_complex("the file is cut into too many small parts")
        return super().read(size)


def _gif(content: bytes) -> ImageFile:
    return GifImageFile(_CountedReads(content))


_OPENERS: Mapping[Format, Callable[[bytes], ImageFile]] = MappingProxyType(
    {
        Format.JPEG: Jpeg,
        Format.PNG: Png,
        Format.WEBP: WebP,
        Format.HEIC: iso_media.heic,
        Format.AVIF: iso_media.avif,
        Format.BMP: Bmp,
        Format.GIF: _gif,
    }
)
"""What reads the header of each format."""
_APART = frozenset({Format.HEIC, Format.AVIF})
"""The formats that are decoded in a process apart, as soon as they are opened."""
_ENDS_EARLY = ("truncated", "end of file", "cannot read full")
"""What decoders say of a file that ends before the photo does."""


@contextmanager
def _refusing_damage() -> Iterator[None]:
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(PhotoReason.IMAGE_TOO_MANY_PIXELS, "the photo has far too many pixels") from error
    except Exception as error:  # on hostile bytes Pillow raises nearly anything
        said = str(error).lower()
        ends_early = isinstance(error, EOFError) or any(words in said for words in _ENDS_EARLY)
        raise (truncated() if ends_early else corrupt()) from error


def _check_bytes(content: bytes, limits: Limits) -> None:
    if not content:
        raise PhotoError(PhotoReason.IMAGE_EMPTY, "there are no bytes")
    if len(content) > limits.max_bytes:
        raise PhotoError(
            PhotoReason.IMAGE_TOO_LARGE, f"the file has {len(content)} bytes, the limit is {limits.max_bytes}"
        )


def _format(content: bytes) -> Format:
    if form := format_of(content):
        return form
    raise PhotoError(PhotoReason.IMAGE_FORMAT, f"the file is {described(content)}; photos are {READ}")


def _check_pixels(image: ImageFile, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise corrupt(f"the photo's size is {width} x {height}")
    most = max_pixels * (_JPEG_PIXELS if isinstance(image, Jpeg) and width * height > _AFFORDABLE else 1)
    if width * height > most:
        raise PhotoError(
            PhotoReason.IMAGE_TOO_MANY_PIXELS,
            f"the photo has {width} x {height} = {width * height} pixels, the limit is {most}",
        )
    if isinstance(image, Jpeg) and (cost := _cost(image)) > max_pixels:
        raise PhotoError(
            PhotoReason.IMAGE_TOO_MANY_PIXELS,
            f"the JPEG has {width} x {height} pixels in several scans, and takes as much memory as {cost} pixels do; "
            f"the limit is {max_pixels}",
        )


def _cost(image: Jpeg) -> int:
    """Return as how many pixels a JPEG counts: those that are decoded, or what it takes the memory of."""
    pixels = image.width * image.height
    if pixels <= _AFFORDABLE:
        return pixels
    divisor = next((divisor for divisor in (2, 4, 8) if pixels <= _AFFORDABLE * divisor * divisor), 8)
    decoded = pixels // (divisor * divisor)
    return max(decoded, (_JPEG_BYTES_A_PIXEL * decoded + image.coefficient_bytes) // _BYTES_A_PIXEL)


def _transpose(image: Image.Image) -> Transpose | None:
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
    clear = values == image.info.get("transparency", -1)
    if not clear.all():
        gray[clear] = 255  # the transparent value, over white
    return Image.fromarray(gray)


def _over_white(image: Image.Image) -> Image.Image:
    """Return the image on white. One that would be nothing but white has a channel that nobody filled in, and is taken as it is."""
    if image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    background = Image.new("RGB", image.size, "white")
    background.paste(image, mask=image)
    return background
