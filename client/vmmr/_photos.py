"""Read the bytes of photos, wherever they are."""

import os
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias, get_args

from vmmr._deadlines import TimeLeft
from vmmr._errors import DeadlineExceededError, FetchError, UnreadablePhotoError
from vmmr._fetch import URL
from vmmr._mistaken import shortened, text_instead, why_unreadable
from vmmr._types import Box, Image, Subject


class BinaryReader(Protocol):
    """An object with the `read` method of a binary file."""

    def read(self, size: int = -1, /) -> bytes: ...


PhotoSource: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryReader
"""An encoded photo: its bytes, the path of a file, a binary file that is open, or a `vmmr.URL`."""


@dataclass(frozen=True)
class Photo:
    """A photo, and what of it to look at: a part that is given, or a subject that the embedder looks for.

    Without either, it is the main car if the embedder's model has a detector, and otherwise all of the photo.
    """

    source: PhotoSource
    crop: Box | None = None
    """The part to look at."""
    subject: Subject | None = None

    def __post_init__(self) -> None:
        if self.subject not in (None, *get_args(Subject)):
            raise ValueError(f"subject must be one of {', '.join(get_args(Subject))}, got {self.subject!r}")
        if self.crop and self.subject:
            raise ValueError(f"crop and subject both say what to look at: give one of them, got {self.subject!r} too")


def load(photo: Photo | PhotoSource, max_bytes: int, time_left: TimeLeft) -> Image:
    """Read a photo.

    Raise UnreadablePhotoError, also if it has more than `max_bytes`; DeadlineExceededError if the time left ended a
    fetch.
    """
    wanted = photo if isinstance(photo, Photo) else Photo(photo)
    return Image(_read(wanted.source, max_bytes, time_left), wanted.crop, wanted.subject)


def load_one_of(position: int, photo: Photo | PhotoSource, max_bytes: int, time_left: TimeLeft) -> Image:
    """Like `load`, for one of several photos: the UnreadablePhotoError says which."""
    try:
        return load(photo, max_bytes, time_left)
    except UnreadablePhotoError as error:
        raise type(error)(f"photos[{position}]: {error}") from error


def one_car(photo: Photo | PhotoSource) -> Photo:
    """Return the photo. Raise ValueError if every car of it is asked for, where there is one answer for each photo."""
    wanted = photo if isinstance(photo, Photo) else Photo(photo)
    if wanted.subject == "every_car":
        raise ValueError("there is one answer for each photo here: identify_every_car and embed take every car of one")
    return wanted


def is_url(photo: Photo | PhotoSource) -> bool:
    return isinstance(_source(photo), URL)


def is_in_memory(photo: Photo | PhotoSource) -> bool:
    """Return whether the photo can be read without waiting for a disk or a network."""
    return isinstance(_source(photo), bytes | bytearray | memoryview)


def several(photos: Iterable[Photo | PhotoSource]) -> Iterable[Photo | PhotoSource]:
    """Return the photos. Raise TypeError for a single path or a photo's bytes, which are iterable too."""
    if isinstance(photos, str | bytes | bytearray | memoryview):
        raise TypeError("photos must be an iterable of photos, got a single one: put it in a list")
    return photos


def _source(photo: Photo | PhotoSource) -> PhotoSource:
    return photo.source if isinstance(photo, Photo) else photo


def _read(source: PhotoSource, max_bytes: int, time_left: TimeLeft) -> bytes:
    at_most = max_bytes + 1
    content = _fetched(source, at_most, time_left) if isinstance(source, URL) else _local(source, at_most)
    if len(content) > max_bytes:
        raise UnreadablePhotoError(f"the photo has more than {max_bytes} bytes, the most that can be sent")
    return content


def _local(source: PhotoSource, at_most: int) -> bytes:
    content = _from_path(source, at_most) if isinstance(source, str | os.PathLike) else _from_memory(source, at_most)
    if instead := text_instead(content):
        raise UnreadablePhotoError(f"{_named(source)}it {instead}")
    return content


def _from_path(path: str | os.PathLike[str], at_most: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(at_most)
    except (OSError, ValueError) as error:
        raise UnreadablePhotoError(why_unreadable(path, error)) from error


def _from_memory(source: bytes | bytearray | memoryview | BinaryReader, at_most: int) -> bytes:
    """Return the bytes that were given, or that an open file has. Raise TypeError if it is neither."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    try:
        content = source.read(at_most) if hasattr(source, "read") else None
    except OSError as error:
        raise UnreadablePhotoError(error.strerror or str(error)) from error
    except UnicodeDecodeError:
        content = None  # a file that is opened as text
    if not isinstance(content, bytes):
        got = reprlib.repr(source)
        raise TypeError(f"a photo is bytes, a path, a file opened in binary mode or a vmmr.URL, got {got}")
    return content


def _named(source: PhotoSource) -> str:
    return f"{shortened(os.fspath(source))}: " if isinstance(source, str | os.PathLike) else ""


def _fetched(url: URL, at_most: int, time_left: TimeLeft) -> bytes:
    try:
        content = replace(url, timeout_s=min(url.timeout_s, time_left())).read(at_most)
    except FetchError as error:
        if time_left() > 0:
            raise
        raise DeadlineExceededError(f"no time was left for {shortened(url.url)}", status="DEADLINE_EXCEEDED") from error
    if instead := text_instead(content):
        raise FetchError(f"{shortened(url.url)}: it {instead}")
    return content
