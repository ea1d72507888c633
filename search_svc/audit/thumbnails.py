"""Tells whether two files show one photo, which may have been encoded again, rescaled, cropped a little, or brightened.

Embeddings alone cannot tell, for they are made to be alike for two photos of like cars. So the pixels of small grey
thumbnails are compared, each as if it were cut out of the other. The measure is the normalised cross-correlation, which
brightness and contrast do not change (Lewis, "Fast Normalized Cross-Correlation", 1995).
"""

import itertools
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from svckit.photos.photo import Limits, Photo, PhotoError

SIZE = 64
"""Pixels on each side of a thumbnail. Photos are squashed to a square."""

_CUTS = (64, 61, 58)
"""Pixels that a crop may leave of a side: it takes a tenth at most."""
_FLAT = 1e-3
"""A region whose values spread less than this shows nothing, and is like no other."""

_LIMITS = Limits(max_bytes=256 << 20, max_pixels=89_000_000, max_aspect=float("inf"))
"""Those of `vmmr-embedder embed`, or wider: what is in the collection was embedded."""

Thumbnail = NDArray[np.uint8]
"""(SIZE, SIZE) grey."""


def read(path: Path) -> Thumbnail:
    """Read the thumbnail of a photo, of any that can be embedded. Raise OSError if the file is not one that can be read."""
    return np.asarray(squashed(path, SIZE, "L"))


def squashed(path: Path, size: int, mode: str) -> Image.Image:
    """Return a photo, upright, squashed to (size, size), in a mode of Pillow's. Raise OSError if the file is not one that can be read."""
    try:
        photo = Photo.open(path.read_bytes(), _LIMITS)
        enough = [divisor for divisor in photo.divisors if min(photo.size) >= 2 * size * divisor]
        upright = photo.decode(max(enough, default=min(photo.divisors))).convert(mode)
    except PhotoError as error:
        raise OSError(f"{path}: {error}") from error
    return upright.resize((size, size), Image.Resampling.BOX)


def alike(one: Thumbnail, other: Thumbnail) -> float:
    """Return the likeness of two thumbnails, -1 to 1; 1 if one is a crop of the other, whatever brightness and contrast."""
    return max(_best_place(one, other), _best_place(other, one))


def roughly_alike(one: Thumbnail, other: Thumbnail) -> float:
    """Return the likeness of two thumbnails that were not cropped, for a hundredth of the work of `alike`."""
    return float(np.vdot(_standard(one.reshape(1, -1)), _standard(other.reshape(1, -1))))


def _best_place(whole: Thumbnail, part: Thumbnail) -> float:
    """Return the likeness of `part` and the region of `whole` that is most like it."""
    picture = Image.fromarray(part)
    best = -1.0
    for height, width in itertools.product(_CUTS, _CUTS):
        shrunk = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).reshape(1, -1)
        regions = sliding_window_view(whole, (height, width)).reshape(-1, height * width)
        best = max(best, float((_standard(regions) @ _standard(shrunk).T).max()))
    return best


def _standard(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the rows shifted to mean 0 and scaled to length 1; a row of equal values becomes 0."""
    centred = rows - rows.mean(axis=1, keepdims=True, dtype=np.float32)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    standard: NDArray[np.float32] = centred / np.maximum(length, _FLAT * rows.shape[1])
    return standard
