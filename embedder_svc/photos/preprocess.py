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

__all__ = ["VERSION", "Box", "Limits", "PhotoError", "PhotoReason", "Resize", "decode"]

VERSION = 1
"""The version of the preprocessing, part of every model's fingerprint. A change that alters a pixel must raise it."""

_WHOLE = Box(0.0, 0.0, 1.0, 1.0)


def decode(content: bytes, *, resize: Resize, crop: Box | None = None, limits: Limits) -> NDArray[np.uint8]:
    """Return the `(size, size, 3)` RGB pixels of an encoded photo, or of the part of it in `crop`. Raise PhotoError."""
    photo = Photo.open(content, limits)
    region = (crop or _WHOLE).region(photo.size)
    size = (region[2] - region[0], region[3] - region[1])
    _check_aspect(size, crop, limits)
    target = resize.scaled(size)
    divisor = next(filter(photo.reducible_by, reductions(size, target)), 1)
    return np.asarray(resize.finish(_scale(photo.decode(divisor), divisor, region, target)))


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
