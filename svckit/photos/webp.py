"""WebPs: what no pixel of the first picture needs is left out before Pillow reads them. (RFC 9649.)"""

import io
import struct
from collections.abc import Iterator

from PIL.WebPImagePlugin import WebPImageFile

from svckit.photos.refusals import too_complex, truncated

_PICTURES = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
_NEEDED = _PICTURES | {b"VP8X", b"ALPH", b"ANIM", b"EXIF"}
_ICC, _XMP = 0x20, 0x04
_EXIF = 0x08
_MAX_CHUNKS = 10_000


class WebP(WebPImageFile):
    """A WebP, of an animation the first picture. Raise PhotoError if that is not there, or it has too many chunks."""

    def __init__(self, content: bytes) -> None:
        body = b"WEBP" + b"".join(_needed(content))
        super().__init__(io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body))


def _needed(content: bytes) -> list[bytes]:
    chunks: dict[bytes, bytes] = {}
    for name, chunk in _chunks(content):
        if name in _NEEDED and not (name in _PICTURES and _PICTURES & chunks.keys()):
            chunks.setdefault(name, chunk)
    if not _PICTURES & chunks.keys():
        raise truncated()
    if header := chunks.get(b"VP8X"):
        flags = header[8] & ~(_ICC | _XMP | (0 if b"EXIF" in chunks else _EXIF))
        chunks[b"VP8X"] = header[:8] + bytes([flags]) + header[9:]
    return list(chunks.values())


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and all bytes of each chunk that is there whole."""
    place = 12
    for _ in range(_MAX_CHUNKS):
        if len(content) < place + 8:
            return
        name, length = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        chunk = content[place : place + 8 + length]
        if len(chunk) < 8 + length:
            return
        yield name, chunk + b"\0" * (length & 1)
        place += 8 + length + (length & 1)
    raise too_complex("the WebP is cut into too many small parts")
