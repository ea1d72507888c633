"""Encoded photo to the network's input: the same code offline and served, so that the same photo gives the same pixels.

The pixels are exactly those of torchvision's Resize and CenterCrop on a Pillow image, unless the photo is decoded at reduced
scale; docs/embedder.md says how far they may differ then.
"""

import math
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedder_svc.photos.resize import Box, Region, Resize, Size, reductions
from svckit.photos.photo import Limits, Photo, PhotoError, PhotoReason

__all__ = ["VERSION", "Box", "Decoded", "Limits", "PhotoError", "PhotoReason", "Resize", "decode"]

VERSION = 2
"""The version of the preprocessing, part of every model's fingerprint. A change that alters a pixel of a photo that was read
right must raise it."""

_WHOLE = Box(0.0, 0.0, 1.0, 1.0)
_LOOKING_GAP = 2.0
"""For the detector a photo is scaled coarsely to this many times its input, then exactly (Pillow's `reducing_gap`)."""
_MOST_KEPT = 6_250_000
"""A photo of more pixels than this is let go once it was looked at, and decoded again to be cut: many at once wait for the detector.
A JPEG of four times as many is decoded at half its size, and kept."""


def decode(content: bytes, *, resize: Resize, crop: Box | None = None, limits: Limits) -> NDArray[np.uint8]:
    """Return the `(size, size, 3)` RGB pixels of an encoded photo, or of the part of it in `crop`. Raise PhotoError."""
    photo = Photo.open(content, limits)
    region = (crop or _WHOLE).region(photo.size)
    _check_aspect(_size(region), crop, limits)
    divisor = _divisor(photo.divisors, photo.size, _size(region), resize)
    return _pixels(photo.decode(divisor), divisor, region, resize)


class Decoded:
    """A photo that is decoded to be looked at by a detector, and then cut. Between the two it holds 25 MB of pixels at most."""

    def __init__(self, content: bytes, *, resize: Resize, limits: Limits) -> None:
        """Decode the photo. Raise PhotoError."""
        photo = Photo.open(content, limits)
        _check_aspect(photo.size, None, limits)
        self.size = photo.size
        """Upright (width, height), of the photo as it was sent."""
        self._content, self._limits, self._resize = content, limits, resize
        self._divisors = photo.divisors
        self._divisor = _divisor(photo.divisors, photo.size, photo.size, resize)
        self._images = {self._divisor: photo.decode(self._divisor)}

    def view(self, side: int) -> NDArray[np.uint8]:
        """Return the pixels (side, side, 3) of the whole photo, squashed."""
        image = self._image(self._divisor)
        if image.width * image.height > _MOST_KEPT:
            self._images.clear()
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=_LOOKING_GAP))

    def cut(self, box: Box) -> NDArray[np.uint8]:
        """Return the pixels of a part, exactly as `decode` does with `box` as crop."""
        region = box.region(self.size)
        divisor = _divisor(self._divisors, self.size, _size(region), self._resize)
        return _pixels(self._image(divisor), divisor, region, self._resize)

    def _image(self, divisor: int) -> Image.Image:
        """Return the photo with its sides divided. It is decoded again for a small part of a large JPEG, and if it was let go."""
        if divisor not in self._images:
            self._images[divisor] = Photo.open(self._content, self._limits).decode(divisor)
        return self._images[divisor]


def _divisor(divisors: AbstractSet[int], whole: Size, part: Size, resize: Resize) -> int:
    """Return the number, one of `divisors`, by which a photo's sides are divided in decoding, if a part of this size is wanted."""
    wanted = _reduction(divisors, part, resize)
    return min(wanted, max(min(divisors), _reduction(divisors, whole, resize) // 2)) if resize.fine else wanted


def _reduction(divisors: AbstractSet[int], size: Size, resize: Resize) -> int:
    return next((divisor for divisor in reductions(size, resize.scaled(size)) if divisor in divisors), min(divisors))


def _size(region: Region) -> Size:
    return region[2] - region[0], region[3] - region[1]


def _pixels(image: Image.Image, divisor: int, region: Region, resize: Resize) -> NDArray[np.uint8]:
    return np.asarray(resize.finish(_scale(image, divisor, region, resize.scaled(_size(region)))))


def _check_aspect(size: Size, crop: Box | None, limits: Limits) -> None:
    if max(size) > limits.max_aspect * min(size):
        raise PhotoError(
            PhotoReason.IMAGE_ASPECT_RATIO if crop is None else PhotoReason.INVALID_CROP,
            f"{size[0]} x {size[1]} pixels is too long and narrow: one side is more than {limits.max_aspect:g} times "
            "the other",
        )


def _scale(image: Image.Image, divisor: int, region: Region, target: Size) -> Image.Image:
    """Scale a region of the image to `target`. The region is in pixels of the full-size photo, the image has its sides divided."""
    left, top, right, bottom = (edge / divisor for edge in region)
    x, y = math.floor(left), math.floor(top)
    # Cut out first, as torchvision would: with `box` alone, pixels outside the region would bleed into its edge.
    part = _cut(image, (x, y, math.ceil(right), math.ceil(bottom)))
    return part.resize(target, Image.Resampling.BILINEAR, box=(left - x, top - y, right - x, bottom - y))


def _cut(image: Image.Image, region: Region) -> Image.Image:
    return image if region == (0, 0, *image.size) else image.crop(region)
