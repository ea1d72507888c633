"""The answers of `/v1`. The SDK's types in them have the SDK's field names."""

from dataclasses import dataclass, field

import vmmr

from web.door.problems import Problem


@dataclass(frozen=True)
class Answer:
    """The answer for one car: an identification, or the problem of its photo."""

    photo: int | None
    """The photo's place among those sent, from 0. Null if several photos were asked as one car."""
    name: str
    """The photo's file name or URL, if it has one."""
    text: str
    """The answer in words, for example `honda pilot 2009-2011`."""
    identification: vmmr.Identification | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class IdentifyReply:
    """The answers: one for each photo, for each car of a photo with `subject=every_car`, or one with `one_car`."""

    answers: list[Answer]
    request_id: str


@dataclass(frozen=True)
class DetectReply:
    """The cars of each photo, the main one first."""

    photos: list[tuple[vmmr.Detection, ...]]
    request_id: str


@dataclass(frozen=True)
class EmbedReply:
    """Embeddings, in the form that `/v1/search` takes."""

    model: str
    """The fingerprint of the model that made them."""
    dimension: int
    data: str
    """The embeddings one after the other, as base64 of little-endian float32."""
    parts: list[vmmr.EmbeddedPart]
    """What each embedding is of."""
    request_id: str


@dataclass(frozen=True)
class SearchReply:
    """The gallery photos nearest to each embedding."""

    results: list[tuple[vmmr.Neighbour, ...]]
    provenance: vmmr.Provenance
    times: vmmr.SearchTimes
    request_id: str


@dataclass(frozen=True)
class LabelsReply:
    """Labels of the gallery, in alphabetical order."""

    labels: list[vmmr.LabelCount]
    request_id: str


@dataclass(frozen=True)
class ItemsReply:
    """Items of the gallery, in the order of their ids."""

    items: list[vmmr.Item]
    more: bool
    """Whether there are more than were asked for: `format=ndjson` gives all."""
    request_id: str


@dataclass(frozen=True)
class Added:
    """What became of one photo that was to be added."""

    photo: int
    name: str
    item: vmmr.Item | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class AddReply:
    """What was added."""

    batch_id: str
    """The batch that the photos were added in: deleting it undoes that."""
    journal_sequence: int
    """The last entry of the journal: a search with it knows the items."""
    photos: list[Added]
    request_id: str


@dataclass(frozen=True)
class DeleteReply:
    """What was deleted."""

    deleted: int
    journal_sequence: int
    request_id: str


@dataclass(frozen=True)
class InfoReply:
    """The model and the index that are served."""

    model: vmmr.ModelInfo
    index: vmmr.IndexInfo
    request_id: str


@dataclass(frozen=True)
class Health:
    """Whether the program, and what it needs, can answer."""

    status: str
    problems: list[str] = field(default_factory=list)
