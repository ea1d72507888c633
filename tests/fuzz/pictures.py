"""Photos, and the boxes in them that callers name: pixels of the right shape, or a refusal with a reason."""

import contextlib
import struct
from pathlib import Path

import numpy as np

from embedder_svc.photos.preprocess import Box, Decoded, Limits, PhotoError, decode
from embedder_svc.photos.resize import Resize

SIDE = 32
LIMITS = Limits(max_bytes=200_000, max_pixels=1_000_000, max_aspect=20.0)
_RULES = [Resize(rule, SIDE) for rule in ("squash", "pad", "crop")]


class Photo:
    """Decodes it as an embedder with a detector does, and as one without."""

    def __init__(self, folder: Path) -> None:
        del folder  # it needs no files

    def __call__(self, content: bytes) -> None:
        with contextlib.suppress(PhotoError):
            whole = Decoded(content, resize=Resize("squash", SIDE, fine=True), limits=LIMITS)
            _check(whole.view(SIDE))
            _check(whole.cut(Box(0.25, 0.0, 1.0, 0.5)))
        with contextlib.suppress(PhotoError):
            _check(decode(content, resize=_RULES[len(content) % 3], limits=LIMITS))


class Crop:
    """Cuts drawn photos, upright, turned by their metadata and without any."""

    def __init__(self, folder: Path) -> None:
        del folder
        corpus = Path(__file__).parent / "corpus/photo"
        self._photos = [(corpus / name).read_bytes() for name in ("progressive", "png", "bmp")]

    def __call__(self, content: bytes) -> None:
        if len(content) < 16:
            return
        box = Box(*struct.unpack("<4f", content[:16]))
        for photo, resize in zip(self._photos, _RULES, strict=True):
            with contextlib.suppress(PhotoError):
                _check(decode(photo, resize=resize, crop=box, limits=LIMITS))


def _check(pixels: np.ndarray) -> None:
    assert pixels.shape == (SIDE, SIDE, 3), pixels.shape
    assert pixels.dtype == np.uint8
