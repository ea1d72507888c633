"""JPEGs to ask with: real photos where they are, or drawn ones."""

import io
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

SIZE = (500, 375)
PHOTOS = 64


def photos_of(folder: Path) -> tuple[str, list[bytes]]:
    """Return a description of the photos, and JPEGs of one size."""
    if folder.is_dir():
        files = sorted(folder.glob("*/*.jpg"))
        return "Stanford Cars", [encoded(Image.open(file)) for file in files[:: max(1, len(files) // PHOTOS)][:PHOTOS]]
    from demo.drawn_cars import LABELS, draw  # noqa: PLC0415 (only where it is needed)

    return "drawn", [encoded(draw(label, seed)) for seed, label in islice(enumerate(cycle(LABELS)), PHOTOS)]


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
    return file.getvalue()
