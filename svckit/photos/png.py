"""PNGs: what no pixel needs is left out before Pillow reads them.

Pillow unpacks colour profiles and texts, and refuses a photo whose metadata is large or damaged. (W3C, Portable Network Graphics.)
"""

import io
import struct
import zlib
from collections.abc import Iterator

from PIL.PngImagePlugin import PngImageFile

from svckit.photos.refusals import too_complex

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Pillow's parsers of headers and chunks are Python loops; a 20 MB PNG in chunks of 1 KB takes 80,000 reads.
_MAX_CHUNKS = 100_000
_COLOUR = 25
"""The place of the kind of colours, in the first chunk."""
_TRANSPARENT = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}
"""The lengths that tRNS may have: of gray, of RGB, of a palette. Other kinds have no such chunk."""


class Png(PngImageFile):
    """A PNG, of an animated one the picture that is there for viewers that know no animations. Raise PhotoError if it has too many chunks."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(b"".join(_needed(memoryview(content)))))


def _needed(content: memoryview) -> Iterator[memoryview]:
    yield content[: len(_SIGNATURE)]
    colour = content[_COLOUR] if len(content) > _COLOUR else 0
    place = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if place >= len(content):
            return
        if len(content) < place + 8:
            break
        (length,) = struct.unpack_from(">I", content, place)
        chunk = content[place : place + 12 + length]
        if _is_needed(chunk, length, colour):
            yield chunk
        place += 12 + length
    else:
        raise too_complex("the PNG is cut into too many small parts")


def _is_needed(chunk: memoryview, length: int, colour: int) -> bool:
    """Return whether a chunk is critical (its name begins with a capital), or says what is transparent or how the photo is turned.

    Of the latter two, one that is damaged says nothing.
    """
    name = bytes(chunk[4:8])
    if name == b"tRNS" and length not in _TRANSPARENT.get(colour, ()):
        return False
    if name in (b"eXIf", b"tRNS"):
        return len(chunk) == length + 12 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
    return not name[:1].islower()
