import io
import random
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
STANFORD = ROOT.parent / "shared" / "data" / "stanford_cars" / "train"


@pytest.fixture(scope="session")
def make_bundle():
    """`make_bundle(path, **fields)` writes a bundle whose network takes microseconds; see tiny_bundle.py."""
    return runpy.run_path(str(Path(__file__).with_name("tiny_bundle.py")))["make"]


@pytest.fixture(scope="session")
def tiny_bundle(make_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    make_bundle(path)
    return path


@pytest.fixture(scope="session")
def real_photos():
    """Two hundred real car photos, the same ones every time."""
    paths = sorted(STANFORD.glob("*/*.jpg"))
    if not paths:
        pytest.skip(f"no photos in {STANFORD}")
    return [path.read_bytes() for path in random.Random(0).sample(paths, 200)]


@pytest.fixture(scope="session")
def scene():
    """A picture (72, 96, 3) that no flip or turn maps to itself, smooth enough for JPEG."""
    y, x = np.mgrid[0:72, 0:96]
    pixels = np.stack([255 * x / 95, 255 * y / 71, 127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 5)], axis=-1)
    return pixels.round().astype(np.uint8)


@pytest.fixture(scope="session")
def encode():
    """`encode(pixels, "PNG", **options)`: an encoded photo."""

    def encoded(pixels, form, **options):
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        file = io.BytesIO()
        image.save(file, form, **options)
        return file.getvalue()

    return encoded
