"""Photos as browsers show them: what kind of file a photo is, how large it is when it is upright, and its bytes as an answer."""

import io
from collections.abc import AsyncIterator, Mapping

from PIL import Image, UnidentifiedImageError
from starlette.responses import StreamingResponse

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
_PIECE_BYTES = 2**18


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


def photo_reply(content: bytes, kind: str, headers: Mapping[str, str] | None = None) -> StreamingResponse:
    """Return a photo as an answer, in pieces: of a photo that its caller reads slowly, no more than a piece is copied to be sent."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), _PIECE_BYTES):
            yield content[start : start + _PIECE_BYTES]

    length = {"content-length": str(len(content))}
    return StreamingResponse(pieces(), media_type=kind, headers={**(headers or {}), **length})
