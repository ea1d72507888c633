"""Turn reply messages into plain values. Raise ProtocolError for a reply that breaks the contract."""

from collections import Counter
from collections.abc import Iterable, Sequence, Sized
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, TypeVar

from vmmr import wire
from vmmr._errors import ProtocolError
from vmmr._gallery import AddResult, Compaction, DeleteResult, IndexVersion, IndexVersions
from vmmr._served import Calibration, CutCounts, Detector, EmbedLimits, IndexInfo, LabelCount, ModelInfo, QueryLimits
from vmmr._types import (
    Box,
    Candidate,
    Classification,
    ClassifyResult,
    Cut,
    Detection,
    EmbeddedPart,
    Embeddings,
    EmbedTimes,
    Item,
    Label,
    Neighbour,
    Provenance,
    SearchResult,
    SearchTimes,
    Subject,
    Verdict,
)
from vmmr.embedder.v1 import embedder_pb2
from vmmr.embedding.v1 import embedding_pb2
from vmmr.gallery.v1 import gallery_pb2
from vmmr.search.v1 import search_pb2

T = TypeVar("T")
Metric = Literal["inner_product", "l2"]

_METRICS: dict[int, Metric] = {search_pb2.METRIC_INNER_PRODUCT: "inner_product", search_pb2.METRIC_L2: "l2"}
_VERDICTS: dict[int, Verdict | None] = {
    search_pb2.VERDICT_UNSPECIFIED: None,
    search_pb2.VERDICT_KNOWN: "known",
    search_pb2.VERDICT_UNSURE: "unsure",
    search_pb2.VERDICT_UNKNOWN: "unknown",
}
_DEFAULTS: tuple[Literal["nprobe", "ef_search", "rerank"], ...] = ("nprobe", "ef_search", "rerank")


def embeddings(reply: embedder_pb2.EmbedResponse, subjects: Sequence[Subject | None]) -> Embeddings:
    """Return the embeddings of photos with these subjects."""
    try:
        vectors = wire.unpack(reply.embeddings)
    except ValueError as error:
        raise ProtocolError(f"the embedder's embeddings are malformed: {error}") from error
    parts = _parts(reply, subjects)
    _check_count(vectors, len(subjects) if parts is None else len(parts), "embedder")
    return Embeddings(reply.embeddings.model, vectors, _copy(EmbedTimes, reply.times), parts)


def detections(reply: embedder_pb2.DetectResponse, photos: int) -> list[tuple[Detection, ...]]:
    _check_count(reply.detections, photos, "embedder")
    return [tuple(Detection(_copy(Box, car.box), car.score) for car in found.cars) for found in reply.detections]


class _Labels:
    """Makes the labels of one reply, each once: many neighbours share few of them."""

    def __init__(self) -> None:
        self._made: dict[str, Label] = {}

    def __call__(self, message: search_pb2.Label) -> Label:
        text = message.label
        if text not in self._made:
            self._made[text] = _label(message)
        return self._made[text]


def search_result(reply: search_pb2.SearchResponse, queries: int) -> SearchResult:
    _check_count(reply.results, queries, "search service")
    labels = _Labels()
    found = tuple(_neighbours(result.neighbours, labels) for result in reply.results)
    return SearchResult(found, _copy(Provenance, reply.provenance), _copy(SearchTimes, reply.times))


def classify_result(reply: search_pb2.ClassifyResponse, cars: int) -> ClassifyResult:
    _check_count(reply.results, cars, "search service")
    labels = _Labels()
    votes = tuple(_classification(result, labels) for result in reply.results)
    return ClassifyResult(votes, _copy(Provenance, reply.provenance), _copy(SearchTimes, reply.times))


def model_info(reply: embedder_pb2.GetModelResponse) -> ModelInfo:
    detector = _copy(Detector, reply.model.detector) if reply.model.HasField("detector") else None
    return _copy(ModelInfo, reply.model, limits=_copy(EmbedLimits, reply.limits), detector=detector)


def index_info(reply: search_pb2.GetIndexResponse) -> IndexInfo:
    metric = _METRICS.get(reply.index.metric)
    if metric is None:
        raise ProtocolError(f"the search service's index has a metric unknown to this SDK: {reply.index.metric}")
    given = {name: getattr(reply.index, name) for name in _DEFAULTS if reply.index.HasField(name)}
    return _copy(
        IndexInfo,
        reply.index,
        **dict.fromkeys(_DEFAULTS) | given,
        metric=metric,
        created=_time(reply.index),
        calibration=_copy(Calibration, reply.index.calibration) if reply.index.HasField("calibration") else None,
        limits=_copy(QueryLimits, reply.limits),
        cuts=_copy(CutCounts, reply.index.cuts) if reply.index.HasField("cuts") else None,
    )


def label_counts(reply: search_pb2.ListLabelsResponse) -> list[LabelCount]:
    return [LabelCount(_label(entry.label), entry.items) for entry in reply.labels]


def add_result(reply: gallery_pb2.AddItemsResponse) -> AddResult:
    return _copy(AddResult, reply)


def delete_result(reply: gallery_pb2.DeleteItemsResponse) -> DeleteResult:
    return _copy(DeleteResult, reply)


def item(message: gallery_pb2.Item) -> Item:
    cut = _cut(message.cut) if message.HasField("cut") else None
    return _copy(Item, message, attributes=dict(message.attributes), cut=cut)


def items(reply: gallery_pb2.ListItemsResponse) -> list[Item]:
    return list(map(item, reply.items))


def compaction(reply: gallery_pb2.CompactResponse) -> Compaction:
    return _copy(Compaction, reply, created=_time(reply))


def versions(reply: gallery_pb2.ListVersionsResponse) -> IndexVersions:
    return _copy(IndexVersions, reply, versions=tuple(map(_version, reply.versions)))


def _parts(reply: embedder_pb2.EmbedResponse, subjects: Sequence[Subject | None]) -> tuple[EmbeddedPart, ...] | None:
    """Return the part that each row is of; None if the embedder, of an earlier version, does not say."""
    if not reply.parts:
        if "main_car" in subjects or "every_car" in subjects:
            raise ProtocolError("the embedder does not look for cars: it is of an earlier version than this SDK")
        return None
    rows = Counter(part.image for part in reply.parts)
    fits = all(rows[n] == 1 or (rows[n] > 1 and subject == "every_car") for n, subject in enumerate(subjects))
    ordered = [part.image for part in reply.parts] == sorted(rows.elements())
    if not fits or not ordered or len(rows) != len(subjects):
        raise ProtocolError(f"the embedder's parts are not those of {len(subjects)} photos: {dict(rows)}")
    return tuple(EmbeddedPart(part.image, _cut(part.cut)) for part in reply.parts)


def _cut(message: embedding_pb2.Cut) -> Cut:
    score = message.car_score if message.HasField("car_score") else None
    return Cut(_copy(Box, message), score, message.no_car_found)


def _version(message: gallery_pb2.Version) -> IndexVersion:
    return _copy(IndexVersion, message, created=_time(message) if message.HasField("create_time") else None)


def _time(message: Any) -> datetime:
    created: datetime = message.create_time.ToDatetime(tzinfo=UTC)
    return created


def _check_count(answers: Sized, asked: int, service: str) -> None:
    if len(answers) != asked:
        raise ProtocolError(f"the {service} gave {len(answers)} answers to {asked} questions")


def _copy(cls: type[T], message: Any, **others: Any) -> T:
    """Return a `cls` made of the message's fields with the same names, and of `others`."""
    names = _names(cls)  # type: ignore[arg-type]  # mypy: a type variable's type has no hash
    return cls(**{name: getattr(message, name) for name in names if name not in others}, **others)


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


# A reply has hundreds of labels and neighbours, too many for the reflection in _copy.
def _label(message: search_pb2.Label) -> Label:
    year = message.year if message.HasField("year") else None
    return Label(message.label, message.make, message.model, year)


def _neighbours(messages: Iterable[search_pb2.Neighbour], labels: _Labels) -> tuple[Neighbour, ...]:
    return tuple(Neighbour(m.item_id, labels(m.label), m.uri, m.score) for m in messages)


def _candidates(messages: Iterable[search_pb2.Candidate], labels: _Labels) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            m.make,
            m.model,
            labels(m.label) if m.HasField("label") else None,
            m.confidence,
            m.nearest_score if m.HasField("nearest_score") else None,
            m.mean_similarity if m.HasField("mean_similarity") else None,
        )
        for m in messages
    )


def _classification(message: search_pb2.Classification, labels: _Labels) -> Classification:
    if message.verdict not in _VERDICTS:
        raise ProtocolError(f"the search service gave a verdict unknown to this SDK: {message.verdict}")
    return _copy(
        Classification,
        message,
        answer=labels(message.answer) if message.HasField("answer") else None,
        verdict=_VERDICTS[message.verdict],
        known_score=message.known_score if message.HasField("known_score") else None,
        years=(message.first_year, message.last_year) if message.HasField("first_year") else None,
        makes=_candidates(message.makes, labels),
        models=_candidates(message.models, labels),
        labels=_candidates(message.labels, labels),
        neighbours=_neighbours(message.neighbours, labels),
    )
