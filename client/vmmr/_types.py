"""Arguments and results of the clients: plain frozen values, never protobuf messages."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Verdict: TypeAlias = Literal["known", "unsure", "unknown"]
"""What an answer is worth. `known`: the car is in the gallery. `unsure`: it is, but the confidence is below what was asked
for. `unknown`: no such car is in the gallery, or no car was found in the photo."""

Subject: TypeAlias = Literal["whole", "main_car", "every_car"]
"""What of a photo to look at. `whole`: all of it. `main_car`: the car that it is of. `every_car`: each car, the main one first."""

LONGEST_S = 2**31 // 1000
"""Times must be shorter: gRPC and our messages count milliseconds in 32 bits, and gRPC says of far longer deadlines at once that they have passed."""


@dataclass(frozen=True)
class Box:
    """A part of an upright photo (after its EXIF orientation is applied), as fractions of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Cut:
    """The part of a photo that an embedding is of."""

    box: Box
    car_score: float | None = None
    """How sure the detector is that it is a car, above 0 and at most 1. None if no detector chose this part."""
    no_car_found: bool = False
    """The detector found no car, so the embedding is of the whole photo, and whatever is nearest to it means little."""


@dataclass(frozen=True)
class Detection:
    """A car in a photo."""

    box: Box
    """Where it is, without the margin that is left around it when it is embedded."""
    score: float
    """How sure the detector is, at most 1."""


@dataclass(frozen=True)
class Image:
    """A photo's bytes and what of it to look at, ready to be sent."""

    content: bytes
    crop: Box | None = None
    subject: Subject | None = None


@dataclass(frozen=True)
class Item:
    """A labelled photo of the gallery."""

    item_id: str
    """The id that its owner gave it, unique in the gallery."""
    label: str
    """The class of car that it shows, for example `honda_pilot_2011`."""
    uri: str = ""
    """Where the photo is, if its owner said so."""
    batch_id: str = ""
    """The batch that it was added in, and can be deleted with."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Anything else that its owner keeps with it."""
    cut: Cut | None = None
    """The part of the photo that its embedding is of. None: not known."""

    def __post_init__(self) -> None:
        check_item(self)


@dataclass(frozen=True)
class Filter:
    """Which gallery photos to search. Values within a field are alternatives; the fields restrict together."""

    makes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    min_year: int | None = None
    max_year: int | None = None

    def __post_init__(self) -> None:
        for name in ("makes", "models", "labels"):
            _check_texts(name, getattr(self, name))
        _check_range(min_year=self.min_year, max_year=self.max_year)


@dataclass(frozen=True)
class SearchOptions:
    """How to search. An option that is None is the index's own."""

    k: int | None = None
    """How many neighbours to find, all of which vote."""
    filter: Filter = field(default_factory=Filter)
    exact: bool = False
    """Compare with every gallery photo instead of asking the index: slower."""
    nprobe: int | None = None
    """Inverted lists to visit, for IVF indexes."""
    ef_search: int | None = None
    """Candidates to keep while walking the graph, for HNSW indexes."""
    rerank: int | None = None
    """Candidates for each neighbour: the index finds `rerank * k`, which are compared again, uncompressed."""
    allow_partial: bool = False
    """Answer without the shards of the index that are late; `Provenance` says how many answered. If False, a late shard
    raises DeadlineExceededError with the reason SHARD_TIMEOUT."""
    shard_timeout_s: float | None = None
    """Seconds that the shards have to answer. None: as many as the service gives them."""
    min_sequence: int = 0
    """Wait until the service knows this entry of its journal: the `journal_sequence` that a write returned."""

    def __post_init__(self) -> None:
        _check_range(k=self.k, nprobe=self.nprobe, ef_search=self.ef_search, rerank=self.rerank)
        if not 0 <= self.min_sequence < 2**64:
            raise ValueError(f"min_sequence must be >= 0 and < 2**64, got {self.min_sequence}")
        if self.shard_timeout_s is not None and not 0 < self.shard_timeout_s < LONGEST_S:
            raise ValueError(f"shard_timeout_s must be > 0 and < {LONGEST_S}, got {self.shard_timeout_s}")


@dataclass(frozen=True)
class EmbedTimes:
    """How long the stages of an embedding took on the embedder."""

    decode_ms: float
    queue_ms: float
    infer_ms: float
    detect_ms: float = 0.0
    """0 if no car was looked for."""


@dataclass(frozen=True)
class SearchTimes:
    """How long the stages of a search took on the search service."""

    queue_ms: float
    search_ms: float
    vote_ms: float


@dataclass(frozen=True)
class Times:
    """How long an identification took. Photos that were sent together share their times."""

    embed: EmbedTimes
    search: SearchTimes
    round_trip_ms: float
    """Milliseconds of both calls as this client saw them, network and retries included."""


@dataclass(frozen=True)
class EmbeddedPart:
    """What an embedding is of."""

    image: int
    """The photo: its position among those that were embedded together."""
    cut: Cut


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of photos, and the model that made them."""

    model: str
    """The fingerprint of that model. The search service refuses embeddings of another model than its index's."""
    vectors: NDArray[np.float32]
    """`(photos, dimension)`: a row for each photo, and for each car of a photo whose subject is `every_car`."""
    times: EmbedTimes | None = None
    parts: tuple[EmbeddedPart, ...] | None = None
    """What each row is of. None: not known, for an embedder of an earlier version does not say."""

    def __post_init__(self) -> None:
        if not isinstance(self.vectors, np.ndarray):
            raise TypeError(f"vectors must be a numpy array, got {type(self.vectors).__name__}")
        if self.vectors.ndim != 2:
            raise ValueError(f"vectors must be a (photos, dimension) matrix, got shape {self.vectors.shape}")
        if self.parts is not None and len(self.parts) != len(self.vectors):
            raise ValueError(f"parts must be one for each of the {len(self.vectors)} vectors, got {len(self.parts)}")

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class Label:
    """A class of car."""

    label: str
    """The label as the gallery's owner wrote it, for example `honda_pilot_2011`. The other fields are parsed from it."""
    make: str
    """Empty if the label couldn't be parsed."""
    model: str
    """Body and trim words included. Empty if the label couldn't be parsed."""
    year: int | None
    """None if the label has no plausible year."""

    def __str__(self) -> str:
        return _in_words(self, "" if self.year is None else str(self.year))


@dataclass(frozen=True)
class Neighbour:
    """A gallery photo near a query."""

    item_id: str
    label: Label
    uri: str
    """Where the photo is, if the gallery's owner said so."""
    score: float
    """Higher is nearer: the inner product (cosine, for unit length), or minus the squared Euclidean distance."""


@dataclass(frozen=True)
class Provenance:
    """The model, index and shards that an answer was computed from."""

    model: str
    """The fingerprint of the model that the gallery was embedded with."""
    index_version: str
    journal_sequence: int
    """The last journal entry that the answer takes into account, with all before it; 0 if nothing was ever written."""
    shards_answered: int
    shards_total: int

    @property
    def partial(self) -> bool:
        """Whether part of the gallery was not searched, as `SearchOptions.allow_partial` allows."""
        return self.shards_answered < self.shards_total


@dataclass(frozen=True)
class Candidate:
    """One of the alternatives at one level of make > model > label."""

    make: str
    model: str
    """Empty among makes."""
    label: Label | None
    """None among makes and models."""
    confidence: float
    """Its share of the vote, 0 to 1. Never a calibrated probability."""
    nearest_score: float | None = None
    """The score of the label's nearest photo. None among makes and models, and from a service that doesn't tell it."""
    mean_similarity: float | None = None
    """How similar the photo is to the mean of all photos of the label: a cosine, -1 to 1. None like `nearest_score`."""


@dataclass(frozen=True)
class Classification:
    """Make, model and year of a car, by the vote of its neighbours. The levels can't contradict each other: the vote is
    read from the make down.

    `str()` gives the answer with its verdict and the range of years, for example `honda pilot 2009-2011`, or `(not calibrated)`
    behind it where the index gives no verdicts.
    """

    answer: Label | None
    """The label that comes nearest, whatever the verdict is. None if the filter left no neighbour to vote."""
    verdict: Verdict | None
    """None if the index is not calibrated, or there is no answer."""
    known_score: float | None
    """The score that the verdict compares with `Calibration.unknown_threshold`: a higher one is more surely a known car."""
    years: tuple[int, int] | None
    """The first and the last of the model years that the gallery can't tell apart for this car; both are the same if it
    can. None if the answer has no year."""
    years_confidence: float
    """How sure make, model and a year within `years` are: label <= years <= model."""
    make_confidence: float
    """How sure the answer is, by level: 0 <= label <= model <= make <= 1. A probability if the index is calibrated, and
    otherwise a share of the vote."""
    model_confidence: float
    label_confidence: float
    makes: tuple[Candidate, ...]
    """All makes that got votes, heaviest first; `models` and `labels` are alike."""
    models: tuple[Candidate, ...]
    labels: tuple[Candidate, ...]
    neighbours: tuple[Neighbour, ...]
    """The voters, nearest first: the evidence."""
    no_car_found: bool = field(default=False, kw_only=True)
    """No car was found in the photo; if several were classified as one car, in none of them. The verdict is "unknown" then."""

    def __str__(self) -> str:
        if self.no_car_found:
            return "no car found in the photo" + (f" (nearest: {self.answer})" if self.answer else "")
        if self.answer is None:
            return "no gallery photo to compare with"
        if self.verdict == "unknown":
            return f"unknown (nearest: {self.answer})"
        car = str(self.answer) if self.years is None else _in_words(self.answer, _span(*self.years))
        if self.verdict is None:
            return f"{car} (not calibrated)"
        return f"unsure (perhaps {car})" if self.verdict == "unsure" else car


@dataclass(frozen=True)
class Identification(Classification):
    """A classification of a photo, with what it was computed from and how long that took."""

    provenance: Provenance
    times: Times
    request_id: str
    """The id of both calls in the services' logs."""
    cut: Cut | None = field(default=None, kw_only=True)
    """The part of the photo that was looked at. None if it was several photos, or if the embedder did not say."""

    def __str__(self) -> str:
        return super().__str__() + reservation(self.provenance)


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of queries."""

    neighbours: tuple[tuple[Neighbour, ...], ...]
    """One entry for each query, in their order; each entry has the nearest first."""
    provenance: Provenance
    times: SearchTimes


@dataclass(frozen=True)
class ClassifyResult:
    """The classifications of queries."""

    classifications: tuple[Classification, ...]
    """One entry for each query, in their order."""
    provenance: Provenance
    times: SearchTimes


def reservation(provenance: Provenance) -> str:
    """Return words to add to an answer if part of the gallery was not searched; otherwise nothing."""
    return f" (from {provenance.shards_answered} of {provenance.shards_total} shards)" if provenance.partial else ""


def _in_words(label: Label, years: str) -> str:
    return " ".join(part for part in (label.make, label.model, years) if part) or label.label


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def check_item(item: Any) -> None:
    """Raise TypeError, naming the field, if what describes an item is not of the kind that it must be."""
    for name in ("item_id", "label", "uri", "batch_id"):
        _check_text(name, getattr(item, name))
    if not isinstance(item.attributes, Mapping):
        raise TypeError(f"attributes must be a mapping of str to str, got {_kind(item.attributes)}")
    for key, value in item.attributes.items():
        _check_text("each key of attributes", key)
        _check_text(f"attributes[{key!r}]", value)


def _check_text(name: str, value: object) -> None:
    if isinstance(value, str):
        return
    hint = f": give its label, {value.label!r}" if isinstance(value, Label) else ""
    raise TypeError(f"{name} must be a str, got {_kind(value)}{hint}")


def _check_texts(name: str, values: object) -> None:
    if isinstance(values, str) or not isinstance(values, Collection):
        raise TypeError(f'{name} must be a tuple of str, such as ("honda",), got {_kind(values)}')
    for position, value in enumerate(values):
        _check_text(f"{name}[{position}]", value)


def _kind(value: object) -> str:
    return type(value).__name__


def _check_range(**numbers: int | None) -> None:
    """Raise ValueError, naming the number, if a message can't carry it. Whether it makes sense is for the service to say."""
    for name, number in numbers.items():
        if number is not None and not 0 <= number < 2**31:
            raise ValueError(f"{name} must be >= 0 and < 2**31, got {number}")
