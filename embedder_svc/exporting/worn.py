"""Worn copies of photos: out of focus, enlarged from few pixels, noisy, or compressed too far, as photos from afar and by night are.

A network brings all photos of a kind of wear near each other, whatever they show. A head that is fitted to good photos alone takes the
directions in which they lie for ones that hardly vary, and makes them large: strangers then look alike, and like the worst photos
of the gallery. So a head is shown these copies too.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]

_DEVIATION = (0.003, 0.027)
"""The least and the largest deviation of the Gaussian that blurs, in sides of the photo."""
_SIDE = (0.04, 0.43)
"""The least and the largest side of the photo when it is made small, in sides of the photo."""
_NOISE = (6, 50)
"""The least and the largest deviation of the noise, where white is 255."""
_QUALITY = (2, 20)
"""The least and the largest quality of the JPEG, as libjpeg counts."""


def copies(photos: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a worn copy of each of the photos (N, side, side, 3). Kinds of wear take turns; how strong each is, is drawn."""
    worn = np.empty_like(photos)
    for number, photo in enumerate(photos):
        worn[number] = _KINDS[number % len(_KINDS)](photo, rng)
    return worn


def _blurred(photo: Pixels, rng: np.random.Generator) -> Pixels:
    deviation = len(photo) * _drawn(_DEVIATION, rng)
    return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(deviation)))


def _enlarged(photo: Pixels, rng: np.random.Generator) -> Pixels:
    side = max(1, round(len(photo) * _drawn(_SIDE, rng)))
    image = Image.fromarray(photo)
    small = image.resize(
        (side, side), Image.Resampling.BICUBIC
    )  # as thumbnails are made; enlarged as preprocessing does it
    return np.asarray(small.resize(image.size, Image.Resampling.BILINEAR))


def _noisy(photo: Pixels, rng: np.random.Generator) -> Pixels:
    noise = rng.normal(0, _drawn(_NOISE, rng), photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8)


def _compressed(photo: Pixels, rng: np.random.Generator) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=round(_drawn(_QUALITY, rng)))
    return np.asarray(Image.open(file))


_KINDS: tuple[Callable[[Pixels, np.random.Generator], Pixels], ...] = (_blurred, _enlarged, _noisy, _compressed)


def _drawn(limits: tuple[float, float], rng: np.random.Generator) -> float:
    """Draw a number between two such that every ratio of it is as likely."""
    low, high = np.log(limits)
    return float(np.exp(rng.uniform(low, high)))
