"""Whether two files are one photo: encoded again, rescaled, cropped a little, or brighter.

Embeddings alone do not tell: they are made to be alike for two photos of like cars. So the pixels of small grey
thumbnails are compared, each as if it were cut out of the other. The measure is the normalised cross-correlation, which
brightness and contrast do not change (Lewis, "Fast Normalized Cross-Correlation", 1995).
"""

import itertools
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIZE = 64
"""Pixels of a thumbnail's side: photos are squashed to it."""

_CUTS = (64, 61, 58)
"""Pixels of a side that was cut: a crop of up to a tenth of it."""
_FLAT = 1e-3
"""Spread of a region that shows nothing: it is like nothing."""

Thumbnail = NDArray[np.uint8]
"""(SIZE, SIZE) grey."""


def read(path: Path) -> Thumbnail:
    """Raises OSError if there is no photo that can be read."""
    try:
        with Image.open(path) as photo:
            photo.draft("L", (2 * SIZE, 2 * SIZE))
            upright = ImageOps.exif_transpose(photo).convert("L")
            return np.asarray(upright.resize((SIZE, SIZE), Image.Resampling.BOX))
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: {error}") from error


def alike(one: Thumbnail, other: Thumbnail) -> float:
    """From -1 to 1; 1 if one is a part of the other, but for brightness and contrast."""
    return max(_best_place(one, other), _best_place(other, one))


def roughly_alike(one: Thumbnail, other: Thumbnail) -> float:
    """The same without a crop, which is a hundredth of the work."""
    return float(np.vdot(_standard(one.reshape(1, -1)), _standard(other.reshape(1, -1))))


def _best_place(whole: Thumbnail, part: Thumbnail) -> float:
    """How alike `part` is to the region of `whole` that is most like it."""
    picture = Image.fromarray(part)
    best = -1.0
    for height, width in itertools.product(_CUTS, _CUTS):
        shrunk = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).reshape(1, -1)
        regions = sliding_window_view(whole, (height, width)).reshape(-1, height * width)
        best = max(best, float((_standard(regions) @ _standard(shrunk).T).max()))
    return best


def _standard(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rows of mean 0 and length 1; of length 0 where all values are one."""
    centred = rows - rows.mean(axis=1, keepdims=True, dtype=np.float32)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    standard: NDArray[np.float32] = centred / np.maximum(length, _FLAT * rows.shape[1])
    return standard
