"""Tell what was given in place of a photo: text that holds one, a URL, a folder. Messages show the start of a name, never all of it."""

import os
import re
from pathlib import Path

_LONGEST_NAME = 200
_LOOKED_AT = 64
_BASE64 = re.compile(
    r"(?:[/_]9j[/_]|iVBORw0KGgo|UklGR|R0lGOD|SUkq|TU0AK|Qk[0-9A-Za-z]|AAAA..Z0eX)[A-Za-z0-9+/_=\s-]*", re.DOTALL
)
"""Matches the beginning of a JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF that is written as base64."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_IS_BASE64 = "is base64 text, not a photo: decode it, and give the bytes, as base64.b64decode returns them"
_IS_DATA_URL = "is a data: URL, not a photo: decode what follows its comma, and give the bytes"
_LEAST_BASE64 = 24


def shortened(name: str) -> str:
    """Return a photo's name for people: all of it, or its beginning and its length if it is longer than names are."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:40]}... ({len(name)} characters)"


def text_instead(content: bytes) -> str | None:
    """Return what is wrong with the bytes of a photo if they are text that holds one; None otherwise."""
    return _text(content[:_LOOKED_AT].decode("latin-1"))


def why_unreadable(path: str | os.PathLike[str], error: OSError | ValueError) -> str:
    """Return why no photo could be read from a path, beginning with the path; in place of what follows from a mistake, say the mistake."""
    name = os.fspath(path)
    return f"{shortened(name)}: {_mistake(name) or _reason(error)}"


def _mistake(name: str) -> str | None:
    """Return what was given instead of a path; None if it may be one."""
    if name.lower().startswith(("http://", "https://")):
        return "is a URL, not a path: give vmmr.URL(...), which fetches it"
    if name.lower().startswith("file:"):
        return "is a URL, not a path: leave out file://"
    if _URL.match(name):
        return "is a URL that can't be fetched: those that begin with http:// or https:// can"
    if "\0" in name:
        return "is no path: it has a NUL character"
    if instead := _text(name):
        return instead
    return "is a folder, not a photo: give the photos in it" if _is_folder(name) else None


def _text(text: str) -> str | None:
    if text[:5].lower() == "data:":
        return _IS_DATA_URL
    return _IS_BASE64 if len(text) >= _LEAST_BASE64 and _BASE64.fullmatch(text[:_LOOKED_AT]) else None


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:
        return False


def _reason(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
