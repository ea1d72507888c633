"""Gather photos into batches that the services accept."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from vmmr._deadlines import unlimited
from vmmr._errors import MessageTooLargeError, PhotoError, VmmrError
from vmmr._photos import Photo, PhotoSource, load, one_car
from vmmr._types import Identification, Image

# An upper bound on what protobuf adds to a photo's bytes: tags, lengths, the crop and the subject.
_FRAMING_BYTES = 64

READ_AHEAD = 8
"""The most photos that are fetched side by side."""


@dataclass(frozen=True)
class Outcome:
    """The result for one photo of many: it was identified, or there is an error."""

    position: int
    """The photo's place among those given, from 0."""
    photo: Photo | PhotoSource
    """The photo as it was given."""
    identification: Identification | None
    error: VmmrError | None
    """A PhotoError if this photo is at fault, otherwise the error of the call that it was in."""

    def result(self) -> Identification:
        """Return the identification. Raise the error if there is none."""
        if self.identification is None:
            assert self.error is not None
            raise self.error
        return self.identification


@dataclass(frozen=True)
class Entry:
    """A photo in a batch: its bytes, or why they couldn't be read."""

    position: int
    photo: Photo | PhotoSource
    image: Image | None = None
    bytes_in_request: int = 0
    error: PhotoError | None = None


@dataclass(frozen=True)
class Limits:
    """The most that a batch, and each photo in it, may have."""

    photos: int
    bytes_in_request: int
    bytes_in_photo: int


def read_entry(position: int, photo: Photo | PhotoSource, limits: Limits) -> Entry:
    """Read a photo. If it can't be read, or would be refused for its size, return an entry with the error.

    Raise ValueError if every car of it is asked for.
    """
    try:
        image = load(one_car(photo), min(limits.bytes_in_photo, limits.bytes_in_request - _FRAMING_BYTES), unlimited)
    except PhotoError as error:
        return Entry(position, photo, error=error)
    return Entry(position, photo, image, len(image.content) + _FRAMING_BYTES)


def photos_of_car(photos: Iterable[Photo | PhotoSource], limits: Limits) -> Iterator[Photo | PhotoSource]:
    """Yield the photos of one car, which go in one request.

    Take each only when it is asked for, since a generator may close its files. Raise ValueError if there are none, or more
    than the services accept, or if every car of one is asked for.
    """
    count = 0
    for count, photo in enumerate(photos, start=1):
        if count > limits.photos:
            raise _not_a_car(limits, f"more than {limits.photos}")
        yield one_car(photo)
    if count == 0:
        raise _not_a_car(limits, "none")


def _not_a_car(limits: Limits, given: str) -> ValueError:
    return ValueError(f"photos of one car must be 1 to {limits.photos}, which the services accept, got {given}")


def check_size(images: Sequence[Image], limits: Limits) -> None:
    """Raise MessageTooLargeError if the photos don't fit in one request."""
    size = sum(len(image.content) + _FRAMING_BYTES for image in images)
    if size > limits.bytes_in_request:
        raise MessageTooLargeError(
            f"the {len(images)} photos have {size} bytes; the most that a request may have is {limits.bytes_in_request}"
        )


@dataclass
class Packer:
    """Gathers entries into batches, in order."""

    limits: Limits
    _entries: list[Entry] = field(default_factory=list)
    _bytes: int = 0

    @property
    def read_ahead(self) -> int:
        """How many photos to read side by side: no more than this batch has room for."""
        return min(READ_AHEAD, self.limits.photos - len(self._entries))

    def add(self, entry: Entry) -> Iterator[list[Entry]]:
        """Add an entry, and yield the batches that it completes: none, one or two."""
        if self._entries and self._bytes + entry.bytes_in_request > self.limits.bytes_in_request:
            yield self._take()
        self._entries.append(entry)
        self._bytes += entry.bytes_in_request
        if len(self._entries) == self.limits.photos:
            yield self._take()

    def rest(self) -> Iterator[list[Entry]]:
        """Yield the last batch, if entries are left."""
        if self._entries:
            yield self._take()

    def _take(self) -> list[Entry]:
        taken, self._entries, self._bytes = self._entries, [], 0
        return taken
