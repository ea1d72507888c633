"""Values for changing a gallery while it is served, and the results: plain and frozen."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from vmmr._errors import VmmrError
from vmmr._photos import Photo
from vmmr._types import Embeddings, Item, Neighbour, check_item
from vmmr.label_names import label_fault
from vmmr.photo_names import is_utf8


@dataclass(frozen=True)
class AddResult:
    """The result of adding items, which are on the service's disk."""

    added: int
    """Items that were not there before."""
    replaced: int
    """Items that took the place of others with their ids."""
    unchanged: int
    """Items that were there already, the same in everything."""
    journal_sequence: int
    """The journal entry of the write. As `SearchOptions.min_sequence` it makes a search wait until it knows the items."""


@dataclass(frozen=True)
class DeleteResult:
    """The result of deleting items."""

    deleted: int
    """Items that were there."""
    journal_sequence: int
    """The journal entry of the write. As `SearchOptions.min_sequence` it makes a search wait until the items are gone."""


@dataclass(frozen=True)
class Compaction:
    """The index version that a compaction made."""

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
    """Whether it is served, or about to be."""
    in_use: bool
    """Whether some process serves it."""
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
        super().__post_init__()
        check_item(self)
        if not self.label:
            raise ValueError("label must not be empty")
        if fault := label_fault(self.label):
            raise ValueError(f"label: {fault}, got {self.label!a}")
        for name in ("item_id", "uri", "batch_id"):
            if not is_utf8(given := getattr(self, name)):
                raise ValueError(f"{name} must be UTF-8, got {given!a}")


@dataclass(frozen=True)
class AddOutcome:
    """The result for one photo of many that were to be added: it is in the gallery, or there is an error."""

    position: int
    """The photo's place among those given, from 0."""
    photo: NewItem
    """The photo as it was given."""
    item: Item | None
    """The item as it is in the gallery; None if there is an error."""
    journal_sequence: int
    """The journal entry of the write that it was in; 0 if it was in none."""
    error: VmmrError | None
    """A PhotoError if this photo is at fault, otherwise the error of the call that it was in."""
    nearest: Neighbour | None = None
    """The gallery photo that was nearest to it before it was added, apart from an item with its own id; None if there was none. Photos
    that are added together are not compared with each other."""
    not_compared: VmmrError | None = None
    """Why the gallery was not searched for the nearest; None if it was, or if the photo was not added. A photo is added all the same."""


def content_id(content: bytes) -> str:
    """Return the id of an item that was given none: the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()


def check_selector(item_ids: object, label: str | None, batch_id: str | None) -> None:
    """Raise ValueError unless exactly one of them is given."""
    given = [name for name, value in (("item_ids", item_ids), ("label", label), ("batch_id", batch_id)) if value]
    if len(given) != 1:
        raise ValueError(f"give one of item_ids, label and batch_id, got {' and '.join(given) or 'none'}")


def check_rows(items: int, embeddings: Embeddings) -> None:
    """Raise ValueError unless there is one embedding for each item."""
    if items != len(embeddings):
        raise ValueError(f"there must be an embedding for each item, got {len(embeddings)} for {items}")
