"""What a file is, by its content: one of the formats that are read, or what else it seems to be."""

import re
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Format(Enum):
    """A format that is read."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"
    HEIC = "HEIC"
    AVIF = "AVIF"
    BMP = "BMP"
    GIF = "GIF"


READ = "JPEG, PNG, WebP, HEIC, AVIF, BMP and GIF"

_STARTS: Mapping[bytes, Format] = MappingProxyType(
    {
        b"\xff\xd8\xff": Format.JPEG,
        b"\x89PNG\r\n\x1a\n": Format.PNG,
        b"GIF87a": Format.GIF,
        b"GIF89a": Format.GIF,
    }
)
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
"""The sizes of a BMP's second header. Its first two bytes, `BM`, begin texts about cars, too."""

_OTHERS = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive, or a document of Office"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"II*\0", "a TIFF, or a camera's raw file"),
    (b"MM\0*", "a TIFF, or a camera's raw file"),
    (b"II+\0", "a BigTIFF"),
    (b"MM\0+", "a BigTIFF"),
    (b"IIU\0", "a camera's raw file (RW2)"),
    (b"IIRO", "a camera's raw file (ORF)"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"8BPS", "a Photoshop file (PSD)"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"%!PS", "PostScript"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (b"FLV\x01", "a video (FLV)"),
    (b"\0\0\x01\xba", "a video (MPEG)"),
    (b"\0\0\x01\xb3", "a video (MPEG)"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3"),
    (b"fLaC", "a FLAC"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\0\x05\x16\x07", "what macOS stores beside a file (AppleDouble, a name that begins with `._`)"),
    (b"\0\0\0\0Bud1", "a `.DS_Store` of macOS"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file that it stands for"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old document of Office"),
    (b"{\\rtf", "a text document (RTF)"),
    (b"data:", "a data: URL, not the bytes of a photo"),
)
_TEXTS = (
    (re.compile(rb"(?:<!--.*?-->|<\?xml.*?\?>|<!doctype[^>]*>|\s)*<svg[\s>]", re.DOTALL | re.IGNORECASE), "an SVG"),
    (re.compile(rb"(?:<!--.*?-->|\s)*<(?:!doctype\s+html|html|head|body|meta|link|script|style|title|div|span|p|a|br|b|h[1-6]|pre|table|center|img|form)\b", re.DOTALL | re.IGNORECASE), "HTML"),
    (re.compile(rb"\s*<\?xml.*?<html\b", re.DOTALL | re.IGNORECASE), "HTML"),
    (re.compile(rb"\s*<[?!]?[a-z]", re.IGNORECASE), "XML"),
    (re.compile(rb'\s*(?:\{\s*["}]|\[\s*["\[{\d\]])'), "JSON"),
    (re.compile(rb"https?://\S+\s*$"), "a URL, not the bytes of a photo"),
    (re.compile(rb"(?:/9j/|iVBORw0KGgo|UklGR|R0lGOD|AAAA[A-Za-z0-9+/]{4}Z0eX)"), "a photo in base64, not its bytes"),
)  # fmt: skip
_HEIFS = frozenset({b"mif1", b"mif2", b"msf1", b"jpeg", b"jpgs", b"avci", b"avcs", b"miaf"})
_VIDEOS = {b"qt  ": "a video (QuickTime)", b"crx ": "a camera's raw file (CR3)", b"M4A ": "an audio file (M4A)"}
_RIFFS = {b"AVI ": "a video (AVI)", b"WAVE": "an audio file (WAV)"}
_LOOKED_AT = 1024


def format_of(content: bytes) -> Format | None:
    """Return the format of a photo; None if it has none that is read. A damaged photo has the format that it begins as."""
    if content[4:8] == b"ftyp":
        return _in_iso_media(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return Format.WEBP
    if content.startswith(b"BM") and int.from_bytes(content[14:18], "little") in _BMP_HEADERS:
        return Format.BMP
    return next((known for start, known in _STARTS.items() if content.startswith(start)), None)


def described(content: bytes) -> str:
    """Return what a file seems to be that is no photo, with its article: "a PDF"."""
    start = _in_utf_8(content[:_LOOKED_AT])
    if content[257:262] == b"ustar":
        return "a tar archive"
    if not start.strip(b"\0"):
        return "nothing but zero bytes"
    return _binary(start) or _text(start) or f"of a type that is not known here, and begins with {start[:8].hex(' ')}"


def _in_utf_8(start: bytes) -> bytes:
    """Return what a text begins with in UTF-8, and without the mark that says how it is coded; other files as they are."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return start.decode("utf-16", "ignore").encode()
    return start.removeprefix(b"\xef\xbb\xbf")


def _binary(start: bytes) -> str | None:
    if start[4:8] == b"ftyp" and start[8:12] in _HEIFS:
        return "a HEIF whose pictures are neither HEIC nor AVIF"
    if start[4:8] == b"ftyp":
        return _VIDEOS.get(start[8:12], "a video (MP4)")
    if start.startswith(b"RIFF"):
        return _RIFFS.get(start[8:12], "a RIFF file")
    return next((name for prefix, name in _OTHERS if start.startswith(prefix)), None)


def _text(start: bytes) -> str | None:
    return next((name for pattern, name in _TEXTS if pattern.match(start)), "text" if _is_text(start) else None)


def _in_iso_media(content: bytes) -> Format | None:
    """Return the format of a file in the ISO base media format (ISO/IEC 14496-12), by its brands, the major one first."""
    end = min(int.from_bytes(content[:4], "big"), _LOOKED_AT)
    brands = [content[8:12], *(content[place : place + 4] for place in range(16, end, 4))]
    known = (
        Format.HEIC if brand in _HEIC_BRANDS else Format.AVIF if brand in _AVIF_BRANDS else None for brand in brands
    )
    return next(filter(None, known), None)


def _is_text(start: bytes) -> bool:
    try:
        start.decode("utf-8", "ignore" if len(start) >= _LOOKED_AT - 3 else "strict")
    except UnicodeDecodeError:
        return False
    return re.search(rb"[\0-\x08\x0e-\x1f\x7f]", start) is None
