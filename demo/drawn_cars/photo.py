"""What a camera does to a picture: sharpness, exposure, white balance, noise, compression."""

import io

import numpy as np
from PIL import Image, ImageFilter


def expose(scene: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return the photo of `size` pixels that a camera would take of a clean `scene`."""
    image = scene.resize(size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(rng.gamma(1.5, 0.2)))
    balance = rng.normal(1, 0.03, 3) * rng.uniform(0.88, 1.14)
    noise = rng.gamma(2, 0.9) * rng.standard_normal((*size[::-1], 1), dtype=np.float32)
    contrast = rng.uniform(0.88, 1.1)
    pixels = (np.asarray(image, dtype=np.float32) - 118) * np.float32(contrast) + 118
    return Image.fromarray(np.clip(pixels * balance.astype(np.float32) + noise, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, rng: np.random.Generator) -> bytes:
    """Return the photo as a phone, or an advertiser's site, would store it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(60, 94)))
    return file.getvalue()
