"""What changes a gallery while it is served, and what comes of it: plain frozen values."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from vmmr._errors import VmmrError
from vmmr._photos import Photo
from vmmr._types import Embeddings, Item


@dataclass(frozen=True)
class AddResult:
    """What adding items did. All of them are on the disk."""

    added: int
    """Items that were not there before."""
    replaced: int
    """Items that took the place of others with their ids."""
    unchanged: int
    """Items that were there already, the same in everything."""
    journal_sequence: int
    """As `SearchOptions.min_sequence` it makes sure that a search knows of them."""


@dataclass(frozen=True)
class DeleteResult:
    """What deleting items did."""

    deleted: int
    """Items that were there."""
    journal_sequence: int
    """As `SearchOptions.min_sequence` it makes sure that a search knows that they are gone."""


@dataclass(frozen=True)
class Compaction:
    """The index version that took over what was written."""

    index_version: str
    items: int
    created: datetime
    journal_sequence: int
    """The last journal entry that it holds."""


@dataclass(frozen=True)
class IndexVersion:
    """A version of the index on the service's disk."""

    index_version: str
    items: int
    """0 if it cannot be read."""
    created: datetime | None
    """None if it cannot be read."""
    model: str
    """Fingerprint of the model that its embeddings were made with. Empty if it cannot be read."""
    journal_sequence: int
    """The last journal entry that it holds. 0 if it cannot be read."""
    current: bool
    """It is served, or about to be."""
    in_use: bool
    """Some process serves it."""
    problem: str = ""
    """Why it cannot be read; empty if it can."""


@dataclass(frozen=True)
class IndexVersions:
    """The versions of the index, oldest first, and what was written since the one that is served."""

    versions: tuple[IndexVersion, ...]
    journal_sequence: int
    """The last entry of the journal; 0 if there never was one."""
    journal_depth: int
    """Entries that the served version does not hold: searches compare with them one by one, until a compaction."""
    journal_bytes: int


@dataclass(frozen=True, kw_only=True)
class NewItem(Photo):
    """A photo to add to the gallery."""

    label: str
    item_id: str = ""
    """Default: the SHA-256 of its bytes, so that the same photo, added again, is the same item."""
    uri: str = ""
    batch_id: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.label:
            raise ValueError("label must not be empty")


@dataclass(frozen=True)
class AddOutcome:
    """What became of one photo of many that were to be added: it is in the gallery, or there is an error."""

    position: int
    """Of the photo among those given, from 0."""
    photo: NewItem
    """As it was given."""
    item: Item | None
    """As it is in the gallery."""
    journal_sequence: int
    """Of the write that it was in; 0 if it was in none."""
    error: VmmrError | None
    """A PhotoError if it is this photo's own fault, otherwise what went wrong with the call it was in."""


def content_id(content: bytes) -> str:
    """The id of an item that was given none."""
    return hashlib.sha256(content).hexdigest()


def check_selector(item_ids: object, label: str | None, batch_id: str | None) -> None:
    """Raises ValueError unless exactly one of them is given."""
    given = [name for name, value in (("item_ids", item_ids), ("label", label), ("batch_id", batch_id)) if value]
    if len(given) != 1:
        raise ValueError(f"give one of item_ids, label and batch_id, got {' and '.join(given) or 'none'}")


def check_rows(items: int, embeddings: Embeddings) -> None:
    """Raises ValueError unless there is an embedding an item."""
    if items != len(embeddings):
        raise ValueError(f"there must be an embedding for each item, got {len(embeddings)} for {items}")
