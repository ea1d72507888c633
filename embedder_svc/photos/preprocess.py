"""Encoded photo to the network's input: the same code offline and served, so that the same photo gives the same pixels.

The pixels are exactly those of torchvision's Resize and CenterCrop on a Pillow image, unless the photo is decoded at reduced
scale; docs/embedder.md says how far they may differ then.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedder_svc.photos.photo import Limits, Photo, PhotoError, PhotoReason
from embedder_svc.photos.resize import Box, Region, Resize, Size, reductions

__all__ = ["VERSION", "Box", "Decoded", "Limits", "PhotoError", "PhotoReason", "Resize", "decode"]

VERSION = 1
"""The version of the preprocessing, part of every model's fingerprint. A change that alters a pixel must raise it."""

_WHOLE = Box(0.0, 0.0, 1.0, 1.0)
_LOOKING_GAP = 2.0
"""For the detector a photo is scaled coarsely to this many times its input, then exactly (Pillow's `reducing_gap`)."""


def decode(content: bytes, *, resize: Resize, crop: Box | None = None, limits: Limits) -> NDArray[np.uint8]:
    """Return the `(size, size, 3)` RGB pixels of an encoded photo, or of the part of it in `crop`. Raise PhotoError."""
    photo = Photo.open(content, limits)
    region = (crop or _WHOLE).region(photo.size)
    _check_aspect(_size(region), crop, limits)
    divisor = _divisor(photo, _size(region), resize)
    return _pixels(photo.decode(divisor), divisor, region, resize)


class Decoded:
    """A photo that is decoded to be looked at by a detector, and then cut. It holds 4 bytes a pixel."""

    def __init__(self, content: bytes, *, resize: Resize, limits: Limits) -> None:
        """Decode the photo. Raise PhotoError."""
        photo = Photo.open(content, limits)
        _check_aspect(photo.size, None, limits)
        self.size = photo.size
        """Upright (width, height), of the photo as it was sent."""
        self._content, self._limits, self._resize = content, limits, resize
        self._divisor = _divisor(photo, photo.size, resize)
        self._image = photo.decode(self._divisor)

    def view(self, side: int) -> NDArray[np.uint8]:
        """Return the pixels (side, side, 3) of the whole photo, squashed."""
        scaled = self._image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=_LOOKING_GAP)
        return np.asarray(scaled)

    def cut(self, box: Box) -> NDArray[np.uint8]:
        """Return the pixels of a part, exactly as `decode` does with `box` as crop."""
        region = box.region(self.size)
        image, divisor = self._image_for(_size(region))
        return _pixels(image, divisor, region, self._resize)

    def _image_for(self, size: Size) -> tuple[Image.Image, int]:
        """Return the image to cut a part of this size from: for a small part of a large JPEG, one that is decoded again."""
        if self._divisor > 1:
            photo = Photo.open(self._content, self._limits)
            if (divisor := _divisor(photo, size, self._resize)) < self._divisor:
                return photo.decode(divisor), divisor
        return self._image, self._divisor


def _divisor(photo: Photo, size: Size, resize: Resize) -> int:
    """Return the number by which the photo's sides are divided in decoding, if a part of this size is wanted."""
    wanted = _reduction(photo, size, resize)
    return min(wanted, max(1, _reduction(photo, photo.size, resize) // 2)) if resize.fine else wanted


def _reduction(photo: Photo, size: Size, resize: Resize) -> int:
    return next(filter(photo.reducible_by, reductions(size, resize.scaled(size))), 1)


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
