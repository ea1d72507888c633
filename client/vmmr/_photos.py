"""A photo's bytes, wherever they are."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from vmmr import _requests
from vmmr._errors import UnreadablePhotoError
from vmmr._types import Box
from vmmr.embedder.v1 import embedder_pb2


class BinaryReader(Protocol):
    """What a binary file can do that matters here."""

    def read(self, size: int = -1, /) -> bytes: ...


PhotoSource: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryReader
"""An encoded photo: its bytes, the path of a file, a binary file that is open, or a `vmmr.URL`."""


@dataclass(frozen=True)
class Photo:
    """A photo, and the part of it to look at."""

    source: PhotoSource
    crop: Box | None = None
    """None: all of it."""


def load(photo: Photo | PhotoSource, max_bytes: int) -> embedder_pb2.Image:
    """The photo as it is sent. Raises UnreadablePhotoError, also if it has more than `max_bytes`."""
    wanted = photo if isinstance(photo, Photo) else Photo(photo)
    return _requests.image(_read(wanted.source, max_bytes), wanted.crop)


def several(photos: Iterable[Photo | PhotoSource]) -> Iterable[Photo | PhotoSource]:
    """The same. A path or a photo's bytes, which are iterable too, are refused with TypeError."""
    if isinstance(photos, str | bytes | bytearray | memoryview):
        raise TypeError("photos must be an iterable of photos, got a single one: put it in a list")
    return photos


def _read(source: PhotoSource, max_bytes: int) -> bytes:
    try:
        content = _content(source, max_bytes + 1)
    except OSError as error:
        raise UnreadablePhotoError(str(error)) from error
    if len(content) > max_bytes:
        raise UnreadablePhotoError(f"the photo has more than {max_bytes} bytes, the most that a request can carry")
    return content


def _content(source: PhotoSource, at_most: int) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            return file.read(at_most)
    content = source.read(at_most) if hasattr(source, "read") else None
    if not isinstance(content, bytes):
        raise TypeError(f"a photo is bytes, a path, a file opened in binary mode or a vmmr.URL, got {source!r}")
    return content
