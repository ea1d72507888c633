"""Photos as browsers show them: what kind of file a photo is, and how large it is when it is upright."""

import io

from PIL import Image, UnidentifiedImageError

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
_HEIF = {b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif", b"avif": "image/avif"}
"""By their brand. Not every browser shows those, but none runs a script in one."""
_KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
_ORIENTATION = 0x0112
_MOST_SHOWN = (960, 720)
_SIDEWAYS = range(5, 9)


def kind_of(content: bytes) -> str | None:
    """Return the media type of a photo, from its bytes alone; None if it is none. No script can be in one of these."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[4:8] == b"ftyp":
        return _HEIF.get(content[8:12])
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), None)


def shown_size(content: bytes) -> tuple[int, int] | None:
    """Return the width and height that a photo is shown in, so that a page has room for it before it has come."""
    size = size_of(content)
    if size is None:
        return None
    scale = min(1.0, _MOST_SHOWN[0] / size[0], _MOST_SHOWN[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def size_of(content: bytes) -> tuple[int, int] | None:
    """Return width and height of an upright photo, from its header; None if they can't be told. No pixel is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=_KINDS) as image:
            width, height = image.size
            sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    return (height, width) if sideways else (width, height)
