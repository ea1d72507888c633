"""JPEGs: what no pixel needs is left out before Pillow reads them, and what lacks pixels is refused.

libjpeg decodes nearly anything: where the compressed data ends early, or was damaged, it makes up the rest and says so only in
warnings, which Pillow does not pass on. So we see to it ourselves that the data ends where the pixels do:

- A JPEG with all its data in one part is given to the decoder piece by piece. It must not be done long before the last byte, and must
  be done after it. That costs nothing.
- Where the data has several parts (progressive JPEGs, restart markers), or the marker at the end of the file is missing, some bytes
  that mean nothing are put behind each part, and the photo is decoded twice, with different ones. If the pixels differ, the
  decoder ran out of data and took those bytes for some.

Damage after which the data still makes as many pixels as before is not found. ITU-T T.81 describes the format.
"""

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL.JpegImagePlugin import JpegImageFile

from svckit.photos.refusals import PhotoError, corrupt, too_complex, truncated

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS, _APP0, _APP1, _APP14, _APP15, _COMMENT = 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_STANDALONE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
"""Markers without a length: TEM, SOI and the restart markers."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ARITHMETIC = frozenset(range(0xC9, 0xD0))
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_END_OF_DATA = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"(\xff+[\xd0-\xd7])")
_RESTARTS_EVERY = 0xDD

# A progressive JPEG of a few KB can ask for thousands of passes over all of its pixels; encoders write about ten.
_MAX_SCANS = 100
_MAX_SCANNED = 2_500_000_000
"""Pixels of all scans of a JPEG together: 100 scans of 25 megapixels, or 23 of 108."""
_MAX_SEGMENTS = 50_000

_AHEAD = bytes([0xFE] * 8)
"""Bytes behind the compressed data, so that libjpeg, which reads 57 bits ahead, decodes the last of it. Ones make long codes: they
are worth few pixels if they are taken for data."""
_TAILS = tuple(bytes(flip ^ (1 + 37 * i % 90) for i in range(64)) for flip in (0x00, 0xFF))
"""Two continuations of which all bits differ. They have neither 0xff, which begins markers, nor a backslash."""
_TO_SPARE = 64
"""Bytes that may follow the data of the last pixel: some cameras write a few."""
_PIECE = 1 << 16
_BAND = 256
"""Rows that are compared at a time."""


class _NotThereError(Exception):
    """The decoder is not done where the data ends, or nobody knows where that is."""


@dataclass(frozen=True)
class _Scan:
    header: bytes
    """The segments that the scan needs, its own (SOS) the last."""
    start: int
    """The place in the file where its compressed data begins."""
    end: int
    components: bytes
    coefficients: range
    bits_left: int
    """The low bits of these coefficients that later scans bring."""


class _Parts:
    """The parts of a JPEG file that its pixels need, and how it is turned. Raise PhotoError if there are none, or far too many."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.frame = b""
        """The marker of the frame's segment, and the segment: it says how large the photo is, and of which components."""
        self.scans: list[_Scan] = []
        self.ended = False
        """Whether the marker at the end of the picture is there."""
        self._restarts_every = 0
        self._read()
        if not self.frame or not self.scans:
            raise corrupt() if self.ended else truncated()

    def _read(self) -> None:
        header, place, has_exif = bytearray(), len(_SOI), False
        for _ in range(_MAX_SEGMENTS):
            found = _MARKER.search(self.content, place)
            if found is None:
                return
            marker, place = found[1][0], found.end()
            if marker == _EOI[1]:
                self.ended = True
                return
            if marker in _STANDALONE:
                continue
            body = self.content[place : place + int.from_bytes(self.content[place : place + 2], "big")]
            if len(body) < 2 or len(body) < int.from_bytes(body[:2], "big"):
                return
            place += len(body)
            if marker == _RESTARTS_EVERY and not self.scans:
                self._restarts_every = int.from_bytes(body[2:4], "big")
            if marker in _FRAMES and not self.frame:
                self.frame = bytes([marker]) + body
            if _is_needed(marker, body) and not (marker == _APP1 and has_exif):
                has_exif |= marker == _APP1
                header += bytes([0xFF, marker]) + body
            if marker == _SOS:
                place = self._add(bytes(header), body, place)
                header.clear()
        raise too_complex("the JPEG is cut into too many small parts")

    def _add(self, header: bytes, body: bytes, start: int) -> int:
        """Add the scan of which `body` is the header's own segment. Return where its data ends."""
        if len(self.scans) == _MAX_SCANS:
            raise too_complex(f"the JPEG has more than {_MAX_SCANS} scans")
        found = _END_OF_DATA.search(self.content, start)
        end = found.start() if found else len(self.content)
        if len(body) < 8:
            raise corrupt()
        first, last, low = body[-3:]
        self.scans.append(_Scan(header, start, end, body[3:-3:2], range(first, last + 1), low & 15))
        return end

    def drop_padding(self) -> bool:
        """Leave out what a file is filled up with behind the data of its only scan: zeros or ones. Return whether there was any.

        Two bytes of it stay: the data may end in a zero, or in the two bytes that 0xff is written as.
        """
        scan = self.scans[0]
        filled = len(self.content[scan.start : scan.end].rstrip(b"\0\xff")) + 2
        self.scans[0] = replace(scan, end=min(scan.end, scan.start + filled))
        return self.scans[0].end < scan.end

    @property
    def components(self) -> bytes:
        return self.frame[9::3]

    @property
    def is_arithmetic(self) -> bool:
        """Return whether the data is coded arithmetically. Such data may end early: zeros are understood."""
        return self.frame[0] in _ARITHMETIC

    @property
    def has_scans(self) -> bool:
        """Return whether the pixels come in several scans, so that libjpeg decodes all of them before the first row."""
        return self.frame[0] in _PROGRESSIVE or len(self.scans[0].components) < len(self.components)

    @property
    def has_restarts(self) -> bool:
        return self._restarts_every > 0

    @property
    def lacks_restarts(self) -> bool:
        """Return whether there are too few restart markers in the data of the only scan: they went with what is missing."""
        if self.has_scans or not self.has_restarts:
            return False
        height, width = (int.from_bytes(self.frame[place : place + 2], "big") for place in (4, 6))
        sampling = self.frame[10::3] if len(self.components) > 1 else b"\x11"
        across, down = 8 * max(each >> 4 for each in sampling), 8 * max(each & 15 for each in sampling)
        units = -(-width // max(8, across)) * -(-height // max(8, down))
        scan = self.scans[0]
        found = sum(1 for _ in _RESTART.finditer(self.content, scan.start, scan.end))
        return found < -(-units // self._restarts_every) - 1

    @property
    def lacks_scans(self) -> bool:
        """Return whether coefficients, or bits of them, are in none of several scans, and the file ends without an end."""
        if self.ended or not self.has_scans:
            return False
        missing = {component: set(range(64)) for component in self.components}
        for scan in self.scans:
            for component in scan.components if scan.bits_left == 0 else b"":
                missing.get(component, set()).difference_update(scan.coefficients)
        return any(missing.values())


def _is_needed(marker: int, body: bytes) -> bool:
    """Return whether a segment says anything of the pixels, or how they are turned; profiles and comments, for example, don't."""
    if marker == _APP0:
        return body[2:7] == b"JFIF\0" and len(body) >= 16
    if marker == _APP1:
        return body[2:8] == b"Exif\0\0"
    if marker == _APP14:
        return body[2:7] == b"Adobe" and len(body) >= 14
    return not _APP0 <= marker <= _APP15 and marker != _COMMENT


class Jpeg(JpegImageFile):
    """A JPEG. Loading its pixels raises PhotoError if some of them come from no data."""

    def __init__(self, content: bytes) -> None:
        self._parts = _Parts(content)
        self._pieces: Iterator[bytes] = iter(())
        self._is_near_end = False
        super().__init__(io.BytesIO(_SOI + self._parts.scans[0].header))
        if len(self._parts.scans) > 1 and self.width * self.height * len(self._parts.scans) > _MAX_SCANNED:
            raise too_complex(f"the JPEG has {len(self._parts.scans)} scans of {self.width} x {self.height} pixels")

    @property
    def coefficient_bytes(self) -> int:
        """The memory that libjpeg takes beside the pixels: all coefficients, if they come in several scans."""
        if not self._parts.has_scans:
            return 0
        shares = [across * down for _, across, down, _ in self.layer]
        most = max(across for _, across, _, _ in self.layer) * max(down for _, _, down, _ in self.layer)
        return 2 * self.width * self.height * sum(shares) // max(1, most)

    def load(self) -> "PixelAccess | None":
        if self.tile:
            self._load_checked()
        return super().load()

    def load_read(self, read_bytes: int) -> bytes:  # noqa: ARG002 (the decoder takes pieces of any size)
        return next(self._pieces, b"")

    def _load_checked(self) -> None:
        parts = self._parts
        if parts.lacks_scans or parts.lacks_restarts:
            raise self._lacking()
        if parts.is_arithmetic:
            self._load(self._as_it_is())
        elif parts.has_scans or parts.has_restarts or not self._is_watched_to_end():
            self._load_twice()

    def _lacking(self) -> PhotoError:
        return corrupt("data of some pixels is missing") if self._parts.ended else truncated()

    def _is_watched_to_end(self) -> bool:
        """Load the pixels, and return whether they ended where the data does; False, too, if nobody knows where that is.

        Raise PhotoError if they ended long before.
        """
        tiles = list(self.tile)
        try:
            self._load(self._watched())
        except _NotThereError:
            self.tile = tiles
            return False
        if self._is_near_end:
            return True
        if not self._parts.drop_padding():
            raise corrupt("there is data for more pixels than it has")
        self.tile, self.fp = tiles, io.BytesIO()
        return self._is_watched_to_end()

    def _load(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        super().load()

    def _load_twice(self) -> None:
        tiles, sums = self.tile, []
        for tail in _TAILS:
            self.tile, self.fp = list(tiles), io.BytesIO()
            self._load(self._continued(tail))
            sums.append(self._sum())
        if sums[0] != sums[1]:
            raise self._lacking()

    def _sum(self) -> int:
        """Return a checksum of the pixels."""
        total = 0
        for top in range(0, self.height, _BAND):
            total = zlib.crc32(self.crop((0, top, self.width, min(self.height, top + _BAND))).tobytes(), total)
        return total

    def _as_it_is(self) -> Iterator[bytes]:
        yield _SOI
        for scan in self._parts.scans:
            yield scan.header
            yield self._parts.content[scan.start : scan.end]
        yield _EOI

    def _continued(self, tail: bytes) -> Iterator[bytes]:
        """Yield the file with `tail` behind each part of the data."""
        yield _SOI
        for scan in self._parts.scans:
            yield scan.header
            data = self._parts.content[scan.start : scan.end].rstrip(b"\xff")
            yield _RESTART.sub(tail + rb"\1", data) + tail
        yield _EOI

    def _watched(self) -> Iterator[bytes]:
        """Yield the file, and note when the decoder asks for the end of it. Raise _NotThereError if it then asks for more."""
        (scan, *_), content = self._parts.scans, self._parts.content
        yield _SOI + scan.header
        almost = max(scan.start, scan.end - _TO_SPARE)
        for start in range(scan.start, almost, _PIECE):
            yield content[start : min(almost, start + _PIECE)]
        self._is_near_end = True
        if not self._parts.ended:
            raise _NotThereError
        yield content[almost : scan.end] + _AHEAD
        raise _NotThereError
