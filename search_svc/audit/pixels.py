"""Tells whether the pixels of two photos that look alike in small and grey are those of one picture.

One is laid over the other where it fits best, its brightness and contrast are fitted, and what is left is looked at tile by tile: one
part of the picture that differs, or has another colour, is enough for two pictures. A render of a car in two colours, and two cars
in one pose before a white wall, are alike all over but for some tiles.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from search_svc.audit.thumbnails import squashed

SIZE = 128
"""Pixels on each side of a picture. Photos are squashed to a square."""
MOST_DIFFERENT = 32.0
"""The most that a tile of two copies may differ, as the root mean square of values from 0 to 255 (docs/audit.md)."""
MOST_COLOURED = 9.0
"""The most that the mean colour of a tile may differ, as the length of a vector of red, green and blue, without their mean."""

_COARSE = 64
_COARSE_CUTS = (64, 62, 60, 58)
_TILES = 8
_LEAST = 1e-3

Picture: TypeAlias = Image.Image
"""(SIZE, SIZE) in RGB, upright."""
_Floats: TypeAlias = NDArray[np.float32]


def read(path: Path) -> Picture:
    """Read the picture of a photo. Raise OSError if the file is not a photo that can be read."""
    return squashed(path, SIZE, "RGB")


def same(one: Picture, other: Picture) -> bool:
    """Return whether these are one picture, maybe encoded again, rescaled, cropped by up to a tenth, or brightened."""
    return any(_agree(*each) for each in (_laid_over(one, other), _laid_over(other, one)))


def _agree(left: _Floats, whole: _Floats) -> bool:
    """Return whether two regions (height, width, 3) agree in every tile, but for brightness and contrast."""
    gain, offset = np.polyfit(left.ravel(), whole.ravel(), 1) if np.ptp(left) else (1.0, 0.0)
    difference = whole - (gain * left + offset)
    colour = difference - difference.mean(axis=2, keepdims=True)
    return all(_rms(tile) <= MOST_DIFFERENT for tile in _tiles(_halved(difference))) and all(
        float(np.linalg.norm(tile.mean(axis=(0, 1)))) <= MOST_COLOURED for tile in _tiles(colour)
    )


def _laid_over(whole: Picture, part: Picture) -> tuple[_Floats, _Floats]:
    """Return `part` and the region of `whole` that it fits best, both (height, width, 3)."""
    pixels = np.asarray(whole, np.float32)
    grey = pixels.mean(axis=2)
    best, found = -2.0, (SIZE, SIZE, 0, 0)
    for height, width, top, left in _places(_coarse_place(whole, part)):
        shrunk = _standard(_resized(part, width, height).mean(axis=2))
        alike = float((_standard(grey[top : top + height, left : left + width]) * shrunk).sum())
        if alike > best:
            best, found = alike, (height, width, top, left)
    height, width, top, left = found
    return _resized(part, width, height), pixels[top : top + height, left : left + width]


def _coarse_place(whole: Picture, part: Picture) -> tuple[int, int, int, int]:
    """Return height, width, top and left of the region of `whole` that `part` fits best, in 64ths of a side."""
    small = np.asarray(whole.convert("L").resize((_COARSE, _COARSE), Image.Resampling.BOX), np.float32)
    grey, best, place = part.convert("L"), -2.0, (_COARSE, _COARSE, 0, 0)
    for height, width in itertools.product(_COARSE_CUTS, _COARSE_CUTS):
        shrunk = _standard(np.asarray(grey.resize((width, height), Image.Resampling.BOX), np.float32)).ravel()
        regions = sliding_window_view(small, (height, width)).reshape(-1, height * width)
        centred = regions - regions.mean(axis=1, keepdims=True)
        alike = centred @ shrunk / np.maximum(np.linalg.norm(centred, axis=1), _LEAST)
        if (nearest := int(alike.argmax())) >= 0 and alike[nearest] > best:
            best, place = float(alike[nearest]), (height, width, *divmod(nearest, _COARSE - width + 1))
    return place


def _places(coarse: tuple[int, int, int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield height, width, top and left, in pixels, of all regions about a place in 64ths of a side."""
    height, width, top, left = (SIZE // _COARSE * each for each in coarse)
    for tall, wide in itertools.product(
        range(height - 2, min(SIZE, height + 2) + 1), range(width - 2, min(SIZE, width + 2) + 1)
    ):
        for down in range(max(0, top - 2), min(SIZE - tall, top + 2) + 1):
            for across in range(max(0, left - 2), min(SIZE - wide, left + 2) + 1):
                yield tall, wide, down, across


def _resized(picture: Picture, width: int, height: int) -> _Floats:
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32)


def _standard(values: _Floats) -> _Floats:
    """Return the values shifted to mean 0 and scaled to length 1."""
    centred = values - values.mean()
    standard: _Floats = centred / max(float(np.linalg.norm(centred)), _LEAST)
    return standard


def _halved(pixels: _Floats) -> _Floats:
    """Return the means of two by two pixels: edges that are half a pixel off count for less."""
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    halved: _Floats = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
    return halved


def _tiles(pixels: _Floats) -> Iterator[_Floats]:
    for row in np.array_split(pixels, _TILES, axis=0):
        yield from np.array_split(row, _TILES, axis=1)


def _rms(values: _Floats) -> float:
    return float(np.sqrt(np.square(values).mean()))
