"""Find photos to send in a folder, or draw them."""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from vmmr import photo_folders
from vmmr.photo_names import PHOTO_SUFFIXES

MOST_BYTES = 128 * 2**20
"""The most bytes of all photos together, since each process holds them all."""

_QUALITY = 85
_ROUGHNESS = 1.6  # the amplitude of a frequency f is f**-1.6: a photo of 500x375 has some 40 kB, as a camera's has


@dataclass(frozen=True)
class Photos:
    contents: tuple[bytes, ...]
    source: str
    """A description of them for people."""


class NoPhotosError(ValueError):
    """Raised if a folder has no photo that could be sent."""


def found(folder: Path, distinct: int, seed: int, max_bytes: int) -> Photos:
    """Return at most `distinct` photos from anywhere below a folder, chosen at random, none of more than `max_bytes`.

    Raise NoPhotosError if there are none, OSError if one can't be read.
    """
    if not folder.is_dir():
        raise NoPhotosError(f"--photos: {folder} is no folder")
    files = photo_folders.find(folder)
    paths = [folder / path for path in files.photos]
    random.Random(seed).shuffle(paths)  # noqa: S311
    contents = tuple(_within(MOST_BYTES, paths, distinct, max_bytes))
    if not contents:
        raise NoPhotosError(
            f"--photos: {folder} has no photo that the embedder accepts: {len(paths)} files end in"
            f" {', '.join(PHOTO_SUFFIXES)}, none has at most {max_bytes} bytes"
        )
    told = photo_folders.tally(files.left_out)
    return Photos(contents, f"{len(contents)} of {len(paths)} photos from {folder}" + (f" ({told})" if told else ""))


def _within(total: int, paths: list[Path], distinct: int, max_bytes: int) -> Iterator[bytes]:
    taken = size = 0
    for path in paths:
        if taken == distinct:
            return
        if 0 < path.stat().st_size <= max_bytes:
            content = path.read_bytes()
            size += len(content)
            if taken and size > total:
                return
            taken += 1
            yield content


def drawn(distinct: int, size: tuple[int, int], seed: int) -> Photos:
    """Draw JPEGs of clouds of colour, with as much detail to decode as photos of that size. A seed always gives the same."""
    contents = tuple(_jpeg(_clouds(np.random.default_rng([seed, number]), *size)) for number in range(distinct))
    return Photos(contents, f"{distinct} drawn photos of {size[0]}x{size[1]}")


def _clouds(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """Return pixels (height, width, 3) of noise, with detail that falls off as it does in photos."""
    across, down = np.fft.rfftfreq(width)[None, :], np.fft.fftfreq(height)[:, None]
    strength = np.maximum(np.hypot(across, down), 1 / max(width, height)) ** -_ROUGHNESS
    phases = rng.standard_normal((3, *strength.shape)) + 1j * rng.standard_normal((3, *strength.shape))
    layers = np.fft.irfft2(phases * strength, (height, width))
    layers = (layers - layers.mean((1, 2), keepdims=True)) / layers.std((1, 2), keepdims=True)
    light, colour = layers[0][..., None], np.moveaxis(layers, 0, -1)
    pixels: NDArray[np.uint8] = np.clip(128 + 45 * light + 18 * colour, 0, 255).astype(np.uint8)
    return pixels


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    # matplotlib, which draws our plots, encodes JPEG too: the SDK needs no Pillow of its own.
    from matplotlib.image import imsave  # noqa: PLC0415  # half a second, and not needed with --photos

    content = io.BytesIO()
    imsave(content, pixels, format="jpeg", pil_kwargs={"quality": _QUALITY})
    return content.getvalue()
